/* storm COUNT JOBS COMMAND: runs COMMAND COUNT times as fast as it can, JOBS at once, and says
 * how many ran and how many processes the kernel counted meanwhile. */
#include "report.h"

#include <spawn.h>
#include <sys/wait.h>

extern char **environ;

/* The line `processes` of /proc/stat: forks since boot, threads included. */
static uint64_t forks(void) {
    static char text[256 * 1024];
    slurp("/proc/stat", text, sizeof text);
    char *at = strstr(text, "\nprocesses ");
    if (!at) fail("/proc/stat");
    return strtoull(at + strlen("\nprocesses "), NULL, 10);
}

int main(int argc, char **argv) {
    if (argc < 4) {
        errno = EINVAL;
        fail("usage: storm COUNT JOBS COMMAND");
    }
    uint64_t count = strtoull(argv[1], NULL, 10), jobs = strtoull(argv[2], NULL, 10);
    char *command[] = {argv[3], NULL};
    uint64_t before = forks(), begin_ns = boottime_ns(), started = 0, ended = 0, executed = 0;
    while (ended < count) {
        while (started < count && started - ended < jobs) {
            pid_t child;
            errno = posix_spawn(&child, command[0], NULL, NULL, command, environ);
            if (errno) fail("posix_spawn");
            started++;
        }
        int status;
        if (wait(&status) < 0) fail("wait");
        ended++;
        executed += WIFEXITED(status) && WEXITSTATUS(status) == 0;
    }
    uint64_t end_ns = boottime_ns();
    say("-",
        "{\"executed\":%" PRIu64 ",\"begin_ns\":%" PRIu64 ",\"end_ns\":%" PRIu64
        ",\"forks\":%" PRIu64 "}",
        executed, begin_ns, end_ns, forks() - before);
    return 0;
}
