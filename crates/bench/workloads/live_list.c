// Three million blocks of 32 bytes live at exit, in one list.
#include <stdlib.h>

enum { BLOCKS = 3000000 };

struct block {
    struct block *next;
    long values[3];
};

struct block *list;

int main(void)
{
    for (int i = 0; i < BLOCKS; i++) {
        struct block *block = malloc(sizeof *block);
        block->next = list;
        list = block;
    }
    return 0;
}
