#include <stdlib.h>

int main(void) {
    char *p = malloc(10);
    p = realloc(p, 0); /* freed here; elsewhere it may not be */
    return p != NULL;
}
