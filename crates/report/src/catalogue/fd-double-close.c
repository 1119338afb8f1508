#include <fcntl.h>
#include <unistd.h>

int main(void) {
    int fd = open("/etc/passwd", O_RDONLY);
    close(fd);
    close(fd); /* perhaps another thread's file by now */
    return 0;
}
