// c++ -g numbers_test.cc -lgtest -lgtest_main -o numbers_test && memcheck --junit=memcheck.xml ./numbers_test
#include <gtest/gtest.h>

#include <vector>

TEST(Numbers, Sum) {
    std::vector<int> numbers{1, 2, 3};
    EXPECT_EQ(numbers[0] + numbers[2], 4);
}

TEST(Numbers, Last) {
    int *numbers = new int[3]{1, 2, 3};
    EXPECT_EQ(numbers[2], 3);
    delete numbers;  // should be delete[]
}
