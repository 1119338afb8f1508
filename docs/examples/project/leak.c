#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char *copy(const char *text) {
    char *fresh = malloc(strlen(text) + 1);
    return strcpy(fresh, text);
}

int main(int argc, char **argv) {
    char *name = NULL;
    for (int i = 0; i < argc + 9; i++) {
        name = copy(argv[0]); /* the copy before is lost */
    }
    puts(name);
    free(name);
    return 0;
}
