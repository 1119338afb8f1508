#include <fcntl.h>
#include <unistd.h>

int main(void) {
    char byte;
    int fd = open("/etc/passwd", O_RDONLY);
    close(fd);
    return read(fd, &byte, 1) == 1;
}
