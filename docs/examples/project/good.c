#include <stdlib.h>

int main(void) {
    int *numbers = calloc(4, sizeof *numbers);
    int sum = numbers[0] + numbers[3];
    free(numbers);
    return sum;
}
