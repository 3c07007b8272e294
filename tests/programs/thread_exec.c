/* thread_exec COMMAND ...: COMMAND is exec'd by a thread that does not lead its process, while
 * the leader and one more wait. */
#include "report.h"

#include <pthread.h>

static char **command;

static void *wait_for_ever(void *unused) {
    for (;;) pause();
    return unused;
}

static void *exec(void *unused) {
    execv(command[0], command);
    fail(command[0]);
    return unused;
}

int main(int argc, char **argv) {
    if (argc < 2) {
        errno = EINVAL;
        fail("usage: thread_exec COMMAND ...");
    }
    command = argv + 1;
    pthread_t idle, execs;
    if (pthread_create(&idle, NULL, wait_for_ever, NULL)) fail("pthread_create");
    if (pthread_create(&execs, NULL, exec, NULL)) fail("pthread_create");
    wait_for_ever(NULL);
}
