#include <stdlib.h>

static char *cursor;

int main(void) {
    cursor = malloc(10);
    cursor += 4; /* no pointer to the start is kept */
    return 0;
}
