#include <stdlib.h>

static char *cache;

int main(void) {
    cache = malloc(10); /* still held when the program ends */
    return cache == NULL;
}
