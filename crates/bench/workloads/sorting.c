// Records and strings are sorted, by qsort and by a merge sort of its own.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct record {
    unsigned key;
    char name[28];
};

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct record *)a)->name, ((const struct record *)b)->name);
}

static void merge_sort(unsigned *v, unsigned *scratch, int n)
{
    if (n < 2)
        return;
    int half = n / 2;
    merge_sort(v, scratch, half);
    merge_sort(v + half, scratch, n - half);
    memcpy(scratch, v, half * sizeof *v);
    for (int i = 0, j = half, k = 0; i < half; k++)
        v[k] = j >= n || scratch[i] <= v[j] ? scratch[i++] : v[j++];
}

int main(int argc, char **argv)
{
    int count = argc > 1 ? atoi(argv[1]) : 200000;
    struct record *records = malloc(count * sizeof *records);
    unsigned *keys = malloc(count * sizeof *keys), *scratch = malloc(count * sizeof *scratch), state = 1;
    for (int i = 0; i < count; i++) {
        state = state * 1103515245 + 12345;
        records[i].key = keys[i] = state >> 3;
        snprintf(records[i].name, sizeof records[i].name, "%08x-%d", state, i % 100);
    }
    for (int round = 0; round < 5; round++) {
        for (int i = 0; i < count; i++)
            keys[i] = keys[i] * 2654435761u + round;
        merge_sort(keys, scratch, count);
    }
    qsort(records, count, sizeof *records, by_name);
    printf("%u %s\n", keys[count / 2], records[count / 2].name);
    free(records);
    free(keys);
    free(scratch);
    return 0;
}
