// Words are counted in a hash table with strings as keys.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct entry {
    struct entry *next;
    long count;
    char key[];
};

static struct entry *buckets[1 << 14];

static struct entry *find(const char *key)
{
    unsigned h = 2166136261u;
    for (const char *c = key; *c; c++)
        h = (h ^ (unsigned char)*c) * 16777619u;
    struct entry **at = &buckets[h & ((1 << 14) - 1)];
    for (; *at != NULL; at = &(*at)->next)
        if (strcmp((*at)->key, key) == 0)
            return *at;
    *at = malloc(sizeof **at + strlen(key) + 1);
    (*at)->next = NULL;
    (*at)->count = 0;
    strcpy((*at)->key, key);
    return *at;
}

int main(int argc, char **argv)
{
    long rounds = argc > 1 ? atol(argv[1]) : 2000000, sum = 0;
    unsigned state = 1;
    for (long i = 0; i < rounds; i++) {
        char key[24];
        state = state * 1103515245 + 12345;
        char *end = key + sizeof key - 1;
        *end = '\0';
        for (unsigned n = (state >> 8) % 40000 + 1; n != 0; n /= 10)
            *--end = '0' + n % 10;
        find(end)->count++;
    }
    for (int i = 0; i < 1 << 14; i++)
        for (struct entry *e = buckets[i], *next; e != NULL; e = next) {
            next = e->next;
            sum += e->count;
            free(e);
        }
    printf("%ld\n", sum);
    return 0;
}
