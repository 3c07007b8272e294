/* Takes memory until it is killed for it, in touch() <- leak() <- main(). */
#include <stdlib.h>

#define STEP (64 << 10)
#define ALL (256 << 20)

__attribute__((noinline)) static int touch(volatile char *bytes)
{
    int sum = 0;
    for (int i = 0; i < STEP; i += 4096)
        sum += bytes[i] = 1;
    return sum;
}

__attribute__((noinline)) static int leak(void)
{
    /* Given at once, taken page by page: nobody but touch() takes any. */
    char *bytes = calloc(1, ALL);
    int sum = 0;
    for (int at = 0; bytes && at < ALL; at += STEP)
        sum += touch(bytes + at);
    return sum;
}

int main(void)
{
    /* Not a tail call. */
    return leak() + 1;
}
