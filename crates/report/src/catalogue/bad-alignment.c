#include <stdlib.h>

int main(void) {
    void *p = NULL;
    if (posix_memalign(&p, 24, 100) == 0) /* 24 is no power of two */
        free(p);
    return 0;
}
