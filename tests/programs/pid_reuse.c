/* pid_reuse REPORT FIRST COMMAND ...: a child runs FIRST and ends; another that gets the very
 * same process id runs COMMAND. Says which id that was. */
#include "report.h"

#include <sys/wait.h>

static int run(char **command) {
    pid_t child = fork();
    if (child < 0) fail("fork");
    if (child == 0) {
        execv(command[0], command);
        _exit(97);
    }
    int status;
    if (waitpid(child, &status, 0) != child) fail("waitpid");
    return status == 0 || WEXITSTATUS(status) != 97 ? child : -1;
}

/* Has the kernel give PID next, unless another process comes between. */
static void give_next(pid_t pid) {
    int fd = open("/proc/sys/kernel/ns_last_pid", O_WRONLY | O_CLOEXEC);
    if (fd < 0 || dprintf(fd, "%d", pid - 1) < 0) fail("/proc/sys/kernel/ns_last_pid");
    close(fd);
}

int main(int argc, char **argv) {
    if (argc < 4) {
        errno = EINVAL;
        fail("usage: pid_reuse REPORT FIRST COMMAND ...");
    }
    char *first[] = {argv[2], NULL};
    pid_t pid = run(first);
    if (pid < 0) fail(argv[2]);
    /* Long enough that the two differ in their start, which /proc tells in ticks. */
    sleep_ms(30);
    for (int tries = 0; tries < 100; tries++) {
        give_next(pid);
        pid_t child = fork();
        if (child < 0) fail("fork");
        if (child == 0) {
            if (getpid() != pid) _exit(96);
            /* The child says so: the parent may be ended as soon as the child is ready. */
            say(argv[1], "{\"reused\":%d}", pid);
            execv(argv[3], argv + 3);
            _exit(97);
        }
        int status;
        if (waitpid(child, &status, 0) != child) fail("waitpid");
        if (child == pid) return WIFEXITED(status) ? WEXITSTATUS(status) : 98;
    }
    errno = EAGAIN;
    fail("the process id was never given again");
}
