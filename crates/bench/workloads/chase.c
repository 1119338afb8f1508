// A chain of pointers in random order is followed.
#include <stdio.h>
#include <stdlib.h>

struct node {
    struct node *next;
    long value;
};

int main(int argc, char **argv)
{
    int count = 100000, rounds = argc > 1 ? atoi(argv[1]) : 100;
    struct node **order = malloc(count * sizeof *order);
    unsigned state = 7;
    for (int i = 0; i < count; i++) {
        order[i] = malloc(sizeof **order);
        order[i]->value = i;
    }
    for (int i = count - 1; i > 0; i--) {
        state = state * 1103515245 + 12345;
        int j = (state >> 4) % (i + 1);
        struct node *other = order[i];
        order[i] = order[j];
        order[j] = other;
    }
    for (int i = 0; i < count; i++)
        order[i]->next = order[(i + 1) % count];
    long sum = 0;
    struct node *at = order[0];
    for (long step = 0; step < (long)rounds * count; step++) {
        sum += at->value;
        at = at->next;
    }
    printf("%ld\n", sum);
    for (int i = 0; i < count; i++)
        free(order[i]);
    free(order);
    return 0;
}
