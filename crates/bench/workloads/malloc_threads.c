// The same amount of work in one thread or in several: `malloc_threads THREADS ROUNDS`; prints wall-clock seconds.
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { KEPT = 256 };
static long rounds;

static void *work(void *argument)
{
    char *kept[KEPT] = {NULL};
    unsigned state = (unsigned)(size_t)argument + 1;
    for (long i = 0; i < rounds; i++) {
        state = state * 1103515245 + 12345;
        int at = state >> 16 & (KEPT - 1);
        size_t size = 16 + (state >> 8) % 200;
        free(kept[at]);
        kept[at] = malloc(size);
        memset(kept[at], at, size);
        for (size_t j = 1; j < size; j++)
            kept[at][j] += kept[at][j - 1];
    }
    for (int at = 0; at < KEPT; at++)
        free(kept[at]);
    return NULL;
}

int main(int argc, char **argv)
{
    if (argc != 3)
        return 2;
    int count = atoi(argv[1]);
    pthread_t threads[16];
    struct timespec start, end;
    rounds = atol(argv[2]) / count;
    clock_gettime(CLOCK_MONOTONIC, &start);
    for (long i = 0; i < count; i++)
        pthread_create(&threads[i], NULL, work, (void *)i);
    for (int i = 0; i < count; i++)
        pthread_join(threads[i], NULL);
    clock_gettime(CLOCK_MONOTONIC, &end);
    printf("%.4f\n", (end.tv_sec - start.tv_sec) + (end.tv_nsec - start.tv_nsec) / 1e9);
    return 0;
}
