int main(void) {
    return 0; /* run as: memcheck --track-fds=yes ./a.out 5</dev/null */
}
