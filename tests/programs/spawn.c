/* spawn HOW COMMAND ...: runs COMMAND as a child the way that many programs do, waits for it,
 * and ends as it ended. HOW is `posix_spawn`, `vfork` or `fork`. */
#include "report.h"

#include <spawn.h>
#include <sys/wait.h>

extern char **environ;

int main(int argc, char **argv) {
    if (argc < 3) {
        errno = EINVAL;
        fail("usage: spawn HOW COMMAND ...");
    }
    pid_t child = -1;
    if (!strcmp(argv[1], "posix_spawn")) {
        errno = posix_spawn(&child, argv[2], NULL, NULL, argv + 2, environ);
        if (errno) fail("posix_spawn");
    } else {
        child = !strcmp(argv[1], "vfork") ? vfork() : fork();
        if (child < 0) fail("fork");
        if (child == 0) {
            execv(argv[2], argv + 2);
            _exit(97);
        }
    }
    int status;
    if (waitpid(child, &status, 0) != child) fail("waitpid");
    return WIFEXITED(status) ? WEXITSTATUS(status) : 98;
}
