#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int main(void) {
    char *text = malloc(6);
    memcpy(text, "hello\n", 6);
    ssize_t n = write(STDOUT_FILENO, text, 8); /* it has 6 bytes */
    free(text);
    return n != 8;
}
