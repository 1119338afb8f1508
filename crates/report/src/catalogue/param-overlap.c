#include <stdlib.h>
#include <string.h>

int main(int argc, char **argv) {
    (void)argv;
    char *digits = malloc(11);
    strcpy(digits, "0123456789");
    memcpy(digits + 2, digits, 4 + (size_t)argc); /* memmove allows this */
    free(digits);
    return 0;
}
