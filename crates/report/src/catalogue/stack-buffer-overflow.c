int main(int argc, char **argv) {
    (void)argv;
    int local[4] = {0};
    local[3 + argc] = 1; /* local[4] is past the end */
    return local[0];
}
