#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int main(void) {
    char *line = malloc(6);
    memcpy(line, "hello\n", 6);
    ssize_t written = write(STDOUT_FILENO, line, 9); /* the system call reads past the end */
    free(line);
    return written < 0;
}
