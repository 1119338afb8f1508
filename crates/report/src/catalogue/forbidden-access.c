#include <stdlib.h>
#include <valgrind/memcheck.h>

int main(void) {
    char *buffer = malloc(64);
    VALGRIND_MAKE_MEM_NOACCESS(buffer + 32, 32); /* not in use now */
    buffer[40] = 1;
    free(buffer);
    return 0;
}
