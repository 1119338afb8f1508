#include <stdlib.h>

int main(void) {
    char *text = malloc(40);
    text += 8; /* the start of the block is lost */
    free(text);
    return 0;
}
