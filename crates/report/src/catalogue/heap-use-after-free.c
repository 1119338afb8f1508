#include <stdio.h>
#include <stdlib.h>

int main(void) {
    int *price = malloc(sizeof *price);
    *price = 42;
    free(price);
    printf("%d\n", *price); /* the block was given back above */
    return 0;
}
