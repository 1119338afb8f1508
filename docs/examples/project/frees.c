#include <stdlib.h>

struct pair {
    int first, second;
};

int main(int argc, char **argv) {
    (void)argv;
    struct pair *pair = malloc(sizeof *pair);
    volatile int *second = &pair->second;
    *second = argc;
    free(pair);
    int seen = *second; /* freed already */
    free(pair);         /* freed twice */
    return seen == argc + 1;
}
