/* uprobe: reaches `serve` after a while, then stays for a moment. */
#include "report.h"

__attribute__((noinline)) void serve(void) { __asm__ volatile("" ::: "memory"); }

int main(void) {
    sleep_ms(20);
    serve();
    linger();
    return 0;
}
