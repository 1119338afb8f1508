#include <stdlib.h>

int main(void) {
    char *name = malloc(10);
    name = malloc(20); /* nothing points to the first block now */
    free(name);
    return 0;
}
