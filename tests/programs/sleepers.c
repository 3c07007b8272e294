/* sleepers COUNT: as many processes that sleep; says their numbers, and ends them at the end of its
 * input. */
#include "report.h"

#include <signal.h>
#include <sys/prctl.h>

int main(int argc, char **argv) {
    if (argc != 2) {
        errno = EINVAL;
        fail("usage: sleepers COUNT");
    }
    pid_t self = getpid();
    for (long count = strtol(argv[1], NULL, 10); count > 0; count--) {
        pid_t child = fork();
        if (child < 0) fail("fork");
        if (!child) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            if (getppid() != self) _exit(0);
            /* The end of what the parent says is its own. */
            close(0);
            close(1);
            prctl(PR_SET_NAME, "hearth-sleeper");
            for (;;) pause();
        }
        printf("%d\n", child);
    }
    fclose(stdout);
    char byte;
    while (read(0, &byte, 1) > 0) {}
    /* Those that are left are killed as their parent ends. */
    return 0;
}
