// Loops that walk along arrays. Each reads `count` elements from `at` on, and other arrays, which are always good.
#include <stdint.h>

static uint64_t others[2][2048];

// Two registers that nothing before needs.
#define SPARE __asm__ volatile("xor %%r10d, %%r10d\n xor %%r11d, %%r11d" ::: "r10", "r11", "cc")

#define SUM(type) \
    uint64_t sum_##type(const type *at, long count) \
    { \
        type *other = (type *)others[0]; \
        for (long i = 0; i < count; i++) \
            other[i] += at[i]; \
        SPARE; \
        return other[0]; \
    } \
    /* the counter is negative and ends at zero */ \
    uint64_t end_##type(const type *at, long count) \
    { \
        const type *end = at + count; \
        type *other = (type *)others[0] + count; \
        for (long i = -count; i != 0; i++) \
            other[i] += end[i]; \
        SPARE; \
        return other[0]; \
    } \
    /* the step is twice the element, and one address stays where it is */ \
    uint64_t odd_##type(const type *at, long count) \
    { \
        volatile type *sum = (type *)others[1]; \
        type *other = (type *)others[0]; \
        for (long i = 0; i < count; i++) \
            *sum += other[i] + at[2 * i]; \
        SPARE; \
        return *sum; \
    } \
    /* both arrays end together */ \
    uint64_t two_##type(const type *at, long count) \
    { \
        type sum = 0; \
        const type *half = at + count; \
        for (long i = 0; i < count; i++) \
            sum += at[i] * half[i] + others[0][i]; \
        SPARE; \
        return sum; \
    }

SUM(uint8_t)
SUM(uint16_t)
SUM(uint32_t)
SUM(uint64_t)
