static int table[4];

int main(int argc, char **argv) {
    (void)argv;
    table[3 + argc] = 1; /* table[4] is past the end */
    return table[0];
}
