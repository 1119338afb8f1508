#include <stdio.h>

int average(int sum, int count) { return sum / count; }

int main(int argc, char **argv) {
    (void)argv;
    printf("%d\n", average(10, argc - 1)); /* count is 0 */
    return 0;
}
