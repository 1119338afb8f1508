#include <stdlib.h>

int main(void) {
    char *list = malloc(10);
    char *longer = realloc(list, 1000); /* list is freed by this */
    longer = realloc(list, 2000);
    free(longer);
    return 0;
}
