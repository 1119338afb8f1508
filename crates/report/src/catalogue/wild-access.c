#include <stdio.h>

int main(void) {
    int *p = (int *)0x123456789000; /* no memory of this program */
    printf("%d\n", *p);
    return 0;
}
