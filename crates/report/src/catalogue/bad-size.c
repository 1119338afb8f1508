#include <stdlib.h>

int main(int argc, char **argv) {
    (void)argv;
    int count = argc - 6;       /* -5 */
    char *table = malloc((size_t)count);
    return table != NULL;
}
