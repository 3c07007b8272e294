/* fork_server REPORT COUNT: listens never itself; forks COUNT children that do, one after the
 * other, as servers do that load a runtime once. */
#include "report.h"

#include <sys/wait.h>

int main(int argc, char **argv) {
    if (argc < 3) {
        errno = EINVAL;
        fail("usage: fork_server REPORT COUNT");
    }
    /* Whoever registers the server does so after its exec. */
    sleep_ms(100);
    for (long left = strtol(argv[2], NULL, 10); left > 0; left--) {
        pid_t child = fork();
        if (child < 0) fail("fork");
        if (child == 0) {
            uint64_t main_ns = boottime_ns();
            listen_somewhere();
            uint64_t ready_ns = boottime_ns();
            say(argv[1],
                "{\"main_ns\":%" PRIu64 ",\"ready_ns\":%" PRIu64
                ",\"pid\":%d,\"start_ticks\":%" PRIu64 "}",
                main_ns, ready_ns, getpid(), start_ticks());
            linger();
            _exit(0);
        }
        if (waitpid(child, NULL, 0) != child) fail("waitpid");
    }
    return 0;
}
