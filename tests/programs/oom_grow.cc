// Takes memory until it is killed for it, in Cart<int>::touch <- shop::leak <- main.
#include <cstdlib>

namespace shop {

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
    int sum = 0;
    for (;;) {
        char *bytes = static_cast<char *>(std::malloc(64 << 10));
        if (!bytes)
            return sum;
        sum += cart.touch(bytes, 64 << 10);
    }
}

} // namespace shop

int main()
{
    return shop::leak() + 1;
}
