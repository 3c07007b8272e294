/* Takes memory until it is killed for it, in touch() <- leak() <- main(). */
#include <stdlib.h>

#define STEP (64 << 10)

__attribute__((noinline)) static int touch(volatile char *bytes)
{
    int sum = 0;
    for (int i = 0; i < STEP; i += 4096)
        sum += bytes[i] = 1;
    return sum;
}

__attribute__((noinline)) static int leak(void)
{
    int sum = 0;
    for (;;) {
        char *bytes = malloc(STEP);
        if (!bytes)
            return sum;
        sum += touch(bytes);
    }
}

int main(void)
{
    /* Not a tail call. */
    return leak() + 1;
}
