/* brief REPORT: lives one millisecond. */
#include "report.h"

int main(int argc, char **argv) {
    uint64_t main_ns = boottime_ns();
    while (boottime_ns() < main_ns + 1000 * 1000) {
    }
    if (argc > 1) {
        say(argv[1],
            "{\"main_ns\":%" PRIu64 ",\"ready_ns\":%" PRIu64 ",\"pid\":%d,\"start_ticks\":%" PRIu64
            "}",
            main_ns, boottime_ns(), getpid(), start_ticks());
    }
    return 7;
}
