// malloc and free of 64 bytes, at a given depth of the call stack: `malloc_pairs DEPTH COUNT`.
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static void __attribute__((noinline)) pairs(long count)
{
    for (long i = 0; i < count; i++) {
        char *volatile p = malloc(64);
        free(p);
    }
}

static long __attribute__((noinline, optimize("no-optimize-sibling-calls"))) descend(int depth, long count)
{
    if (depth <= 2) {
        pairs(count);
        return 0;
    }
    long result = descend(depth - 1, count);
    __asm__ volatile("" ::: "memory");
    return result + 1;
}

int main(int argc, char **argv)
{
    if (argc != 3)
        return 2;
    long count = atol(argv[2]);
    struct timespec start, end;
    descend(atoi(argv[1]), count / 20);
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &start);
    descend(atoi(argv[1]), count);
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &end);
    printf("%.2f\n", ((end.tv_sec - start.tv_sec) * 1e9 + (end.tv_nsec - start.tv_nsec)) / count);
    return 0;
}
