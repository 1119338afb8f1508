#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv) {
    (void)argv;
    int count = argc + 3;
    volatile int *squares = malloc(count * sizeof *squares);
    for (int i = 0; i <= count; i++) {
        squares[i] = i * i; /* one too many */
    }
    printf("%d\n", squares[count - 1]);
    free((void *)squares);
    return 0;
}
