/* Fails by itself: memcheck leaves its exit status alone. */
int main(void) {
    return 3;
}
