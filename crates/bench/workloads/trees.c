// Binary trees are built, walked and freed.
#include <stdio.h>
#include <stdlib.h>

struct tree {
    struct tree *left, *right;
};

static struct tree *grow(int depth)
{
    struct tree *t = malloc(sizeof *t);
    t->left = depth > 0 ? grow(depth - 1) : NULL;
    t->right = depth > 0 ? grow(depth - 1) : NULL;
    return t;
}

static long count(const struct tree *t)
{
    return t == NULL ? 0 : 1 + count(t->left) + count(t->right);
}

static void fell(struct tree *t)
{
    if (t == NULL)
        return;
    fell(t->left);
    fell(t->right);
    free(t);
}

int main(int argc, char **argv)
{
    int depth = argc > 1 ? atoi(argv[1]) : 16;
    long total = 0;
    struct tree *lasting = grow(depth);
    for (int round = 0; round < 20; round++) {
        struct tree *t = grow(depth - 2);
        for (int walk = 0; walk < 4; walk++)
            total += count(t);
        fell(t);
    }
    printf("%ld %ld\n", total, count(lasting));
    fell(lasting);
    return 0;
}
