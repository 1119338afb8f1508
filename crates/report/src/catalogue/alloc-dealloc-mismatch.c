#include <stdlib.h>

int main() { // C++
    char *text = new char[10];
    free(text); // delete[] belongs to new[]
    return 0;
}
