#include <fcntl.h>

int main(void) {
    int fd = open("/etc/passwd", O_RDONLY);
    return fd < 0; /* never closed */
}
