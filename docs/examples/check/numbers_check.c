/* cc -g numbers_check.c $(pkg-config --cflags --libs check) -o numbers_check && memcheck ./numbers_check
 * Check runs each test in a process of its own; memcheck follows them. CK_FORK=no is not needed. */
#include <check.h>
#include <stdlib.h>

START_TEST(sum) {
    int *numbers = calloc(3, sizeof *numbers);
    ck_assert_int_eq(numbers[0] + numbers[2], 0);
    free(numbers);
}
END_TEST

START_TEST(last) {
    int *numbers = malloc(3 * sizeof *numbers);
    free(numbers);
    ck_assert_ptr_nonnull(numbers);
    numbers[2] = 3; /* freed above */
}
END_TEST

int main(void) {
    Suite *suite = suite_create("numbers");
    TCase *tests = tcase_create("all");
    tcase_add_test(tests, sum);
    tcase_add_test(tests, last);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
