/* oracle ... MODE REPORT: MODE is `listen` or `exit`. The last two arguments count, so that
 * it can stand behind `#!`. */
#include "report.h"

int main(int argc, char **argv) {
    uint64_t main_ns = boottime_ns();
    if (argc < 3) {
        errno = EINVAL;
        fail("usage: oracle MODE REPORT");
    }
    int listens = !strcmp(argv[argc - 2], "listen");
    if (listens) listen_somewhere();
    uint64_t ready_ns = boottime_ns();
    say(argv[argc - 1],
        "{\"main_ns\":%" PRIu64 ",\"ready_ns\":%" PRIu64 ",\"pid\":%d,\"start_ticks\":%" PRIu64 "}",
        main_ns, ready_ns, getpid(), start_ticks());
    if (listens) linger();
    return 0;
}
