#include <stdlib.h>
#include <valgrind/memcheck.h>

int main(void) {
    char *buffer = malloc(24);
    VALGRIND_CHECK_MEM_IS_ADDRESSABLE(buffer, 32);
    free(buffer);
    return 0;
}
