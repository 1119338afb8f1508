#include <stdio.h>
#include <stdlib.h>

struct user { char name[16]; int age; };

int main(void) {
    struct user *user = NULL; /* say, a search that found nobody */
    printf("%d\n", user->age);
    return 0;
}
