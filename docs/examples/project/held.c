#include <stdlib.h>

struct node {
    struct node *next;
    char name[24];
};

struct node *volatile list; /* still leads to its nodes at the end */
char *volatile inside;      /* leads to the middle of a block */
struct node *volatile lost;

int main(void) {
    for (int i = 0; i < 3; i++) {
        struct node *node = calloc(1, sizeof *node);
        node->next = list;
        list = node;
    }
    inside = (char *)malloc(100) + 10;
    lost = calloc(1, sizeof *lost);
    lost->next = calloc(1, sizeof *lost);
    lost = NULL; /* two nodes are lost, one of them only with the other */
    return 0;
}
