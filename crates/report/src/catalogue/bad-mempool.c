#include <valgrind/memcheck.h>

int main(void) {
    static char pool[64];
    VALGRIND_MEMPOOL_ALLOC(pool, pool, 16); /* without VALGRIND_CREATE_MEMPOOL */
    return 0;
}
