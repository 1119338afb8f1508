#include <stdlib.h>

struct node { struct node *next; };

int main(void) {
    struct node *head = malloc(sizeof *head);
    head->next = calloc(1, sizeof *head);
    head = NULL; /* the first node is lost, and with it the second */
    return head != NULL;
}
