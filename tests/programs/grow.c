/* grow PROCS RATE: enters the cgroup whose cgroup.procs is PROCS, then takes RATE bytes of memory a
 * second, by its own clock, until it is killed for it. */
#include "report.h"

#include <sys/mman.h>

int main(int argc, char **argv) {
    if (argc != 3) return 96;
    uint64_t rate = strtoull(argv[2], NULL, 10);
    size_t most = (size_t)1 << 28;
    int procs = open(argv[1], O_WRONLY | O_CLOEXEC);
    if (procs < 0 || dprintf(procs, "%d", getpid()) < 0) fail(argv[1]);
    close(procs);
    /* A small machine need not promise all of it. */
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    char *memory = mmap(NULL, most, PROT_READ | PROT_WRITE, flags, -1, 0);
    if (memory == MAP_FAILED) fail("mmap");
    uint64_t begin = boottime_ns();
    for (size_t taken = 0; taken < most;) {
        size_t due = (size_t)((boottime_ns() - begin) * (rate / 1000) / 1000000);
        for (; taken < due && taken < most; taken += 4096) memory[taken] = 1;
        sleep_ms(20);
    }
    return 0;
}
