/* cgroup_storm PARENT own|shared make|attach THREADS MS: for MS milliseconds each thread makes and
 * removes cgroups below PARENT, in a directory of its own or all in that one, with `attach` moving
 * a process of its own in and out again; then says how many were made and removed. */
#include "report.h"

#include <pthread.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>

enum { THREADS = 64, PATH = 512 };

struct worker {
    pthread_t thread;
    char home[PATH];
    int number;
    /* The process that is moved; 0 where none is. */
    pid_t moved;
    uint64_t cycles;
};

static pthread_barrier_t together;
static uint64_t until_ns;

static void attach(const char *cgroup, pid_t process) {
    char path[PATH + 32], text[16];
    snprintf(path, sizeof path, "%s/cgroup.procs", cgroup);
    int length = snprintf(text, sizeof text, "%d", process);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0 || write(fd, text, (size_t)length) != length) fail(path);
    close(fd);
}

static void *work(void *argument) {
    struct worker *worker = argument;
    char path[PATH + 64];
    pthread_barrier_wait(&together);
    for (uint64_t turn = 0; boottime_ns() < until_ns; turn++) {
        snprintf(path, sizeof path, "%s/%d-%" PRIu64, worker->home, worker->number, turn % 2);
        if (mkdir(path, 0755)) {
            /* A v1 memory cgroup keeps its id until it is freed, and ids are few. */
            if (errno != ENOSPC && errno != ENOMEM) fail(path);
            sleep_ms(1);
            continue;
        }
        if (worker->moved) {
            attach(path, worker->moved);
            attach(worker->home, worker->moved);
        }
        if (rmdir(path)) fail(path);
        worker->cycles++;
    }
    return NULL;
}

static pid_t sleeper(void) {
    pid_t parent = getpid(), child = fork();
    if (child < 0) fail("fork");
    if (!child) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        while (getppid() == parent) pause();
        _exit(0);
    }
    return child;
}

int main(int argc, char **argv) {
    static struct worker workers[THREADS];
    int count = argc == 6 ? atoi(argv[4]) : 0;
    if (count < 1 || count > THREADS || strlen(argv[1]) > PATH - 32) {
        errno = EINVAL;
        fail("usage: cgroup_storm PARENT own|shared make|attach THREADS MS");
    }
    int own = !strcmp(argv[2], "own"), attaches = !strcmp(argv[3], "attach");
    for (int i = 0; i < count; i++) {
        struct worker *worker = &workers[i];
        worker->number = i;
        int length = snprintf(worker->home, sizeof worker->home, "%s", argv[1]);
        if (own) {
            snprintf(worker->home + length, sizeof worker->home - (size_t)length, "/own-%d", i);
            if (mkdir(worker->home, 0755)) fail(worker->home);
        }
        if (attaches) {
            worker->moved = sleeper();
            attach(worker->home, worker->moved);
        }
    }
    pthread_barrier_init(&together, NULL, (unsigned)count + 1);
    for (int i = 0; i < count; i++)
        if (pthread_create(&workers[i].thread, NULL, work, &workers[i])) fail("pthread_create");
    uint64_t begin_ns = boottime_ns(), cycles = 0;
    until_ns = begin_ns + strtoull(argv[5], NULL, 10) * 1000000u;
    pthread_barrier_wait(&together);
    for (int i = 0; i < count; i++) {
        pthread_join(workers[i].thread, NULL);
        cycles += workers[i].cycles;
    }
    uint64_t end_ns = boottime_ns();
    for (int i = 0; i < count; i++) {
        if (workers[i].moved) {
            kill(workers[i].moved, SIGKILL);
            waitpid(workers[i].moved, NULL, 0);
        }
        if (own && rmdir(workers[i].home)) fail(workers[i].home);
    }
    say("-", "{\"cycles\":%" PRIu64 ",\"begin_ns\":%" PRIu64 ",\"end_ns\":%" PRIu64 "}", cycles,
        begin_ns, end_ns);
    return 0;
}
