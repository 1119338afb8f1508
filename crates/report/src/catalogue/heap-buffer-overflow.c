#include <stdlib.h>

int main(void) {
    int *squares = malloc(6 * sizeof *squares);
    for (int i = 0; i <= 6; i++)
        squares[i] = i * i; /* squares[6] is past the end */
    free(squares);
    return 0;
}
