// Takes memory until it is killed for it, in Cart<int>::touch <- shop::leak <- main.
#include <cstdlib>

namespace shop {

constexpr int ALL = 256 << 20;

template <typename T> struct Cart {
    __attribute__((noinline)) int touch(volatile char *bytes, T step)
    {
        int sum = 0;
        for (T i = 0; i < step; i += 4096)
            sum += bytes[i] = 1;
        return sum;
    }
};

__attribute__((noinline)) int leak()
{
    Cart<int> cart;
    // Given at once, taken page by page: nobody but touch() takes any.
    char *bytes = static_cast<char *>(std::calloc(1, ALL));
    int sum = 0;
    for (int at = 0; bytes && at < ALL; at += 64 << 10)
        sum += cart.touch(bytes + at, 64 << 10);
    return sum;
}

} // namespace shop

int main()
{
    return shop::leak() + 1;
}
