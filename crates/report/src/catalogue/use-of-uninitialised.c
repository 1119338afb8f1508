#include <stdlib.h>

int main(void) {
    int *flag = malloc(sizeof *flag);
    int status = *flag ? 1 : 0; /* *flag was never set */
    free(flag);
    return status;
}
