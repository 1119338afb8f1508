#include <stdlib.h>

static void finish(char *line) { free(line); }

int main(void) {
    char *line = malloc(80);
    finish(line);
    free(line); /* finish freed it already */
    return 0;
}
