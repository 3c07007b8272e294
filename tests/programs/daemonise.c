/* daemonise REPORT MS: leaves its parent as daemons do, by two forks with a setsid between;
 * MS after both ancestors have ended, the grandchild listens. */
#include "report.h"

int main(int argc, char **argv) {
    uint64_t main_ns = boottime_ns();
    if (argc < 3) {
        errno = EINVAL;
        fail("usage: daemonise REPORT MS");
    }
    pid_t ancestor = getpid();
    pid_t child = fork();
    if (child < 0) fail("fork");
    if (child > 0) return 0;
    setsid();
    pid_t middle = getpid();
    child = fork();
    if (child < 0) fail("fork");
    if (child > 0) return 0;
    while (getppid() == middle) usleep(100);
    sleep_ms(strtoull(argv[2], NULL, 10));
    listen_somewhere();
    uint64_t ready_ns = boottime_ns();
    say(argv[1],
        "{\"main_ns\":%" PRIu64 ",\"ready_ns\":%" PRIu64 ",\"pid\":%d,\"start_ticks\":%" PRIu64
        ",\"ancestor\":%d}",
        main_ns, ready_ns, getpid(), start_ticks(), ancestor);
    linger();
    return 0;
}
