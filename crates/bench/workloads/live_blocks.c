// Three million blocks of 16 to 80 bytes live at exit, in chains of a hash table: what a leak search has to walk.
#include <stdlib.h>

enum { BLOCKS = 3000000, BUCKETS = 1 << 20 };

struct block {
    struct block *next;
    unsigned long key;
};

struct block *table[BUCKETS];

int main(void)
{
    unsigned long key = 1;
    for (int i = 0; i < BLOCKS; i++) {
        key = key * 6364136223846793005 + 1442695040888963407;
        struct block *block = malloc(sizeof *block + (key >> 40 & 64));
        struct block **bucket = &table[key >> 44];
        block->key = key;
        block->next = *bucket;
        *bucket = block;
    }
    return 0;
}
