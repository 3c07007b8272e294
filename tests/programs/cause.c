/* cause CAUSE REPORT [ARGUMENT ...]: spends the time between main and listen in one way, and
 * reports what the scheduler charged it with meanwhile (`delay_ns` is the main thread's).
 *
 *   spin MS        runs for MS of processor time
 *   sleep MS       sleeps
 *   queue MS CPU   the same on CPU, where others want to run, too
 *   read FILE      reads FILE
 *   lock-idle MS   waits for a lock whose holder sleeps
 *   lock-busy MS   waits for a lock whose holder runs
 */
#include "report.h"

#include <pthread.h>
#include <sched.h>
#include <sys/resource.h>

struct charge {
    uint64_t run_ns, delay_ns;
    uint64_t minor_faults, major_faults, read_bytes;
};

/* Processor time by the clock that is exact at any moment (schedstat's first figure moves with
 * the tick); time in the run queue from schedstat, which is exact for one that now runs. */
static struct charge charged(void) {
    struct charge sum = {.run_ns = clock_ns(CLOCK_PROCESS_CPUTIME_ID)};
    char text[1024];
    slurp("/proc/self/schedstat", text, sizeof text);
    if (sscanf(text, "%*u %" SCNu64, &sum.delay_ns) != 1) fail("/proc/self/schedstat");
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    sum.minor_faults = (uint64_t)usage.ru_minflt;
    sum.major_faults = (uint64_t)usage.ru_majflt;
    slurp("/proc/self/io", text, sizeof text);
    char *at = strstr(text, "read_bytes: ");
    if (!at) fail("/proc/self/io");
    sum.read_bytes = strtoull(at + strlen("read_bytes: "), NULL, 10);
    return sum;
}

/* Runs for that long, however long it takes to be let. */
static void spin_ms(uint64_t ms) {
    uint64_t end_ns = clock_ns(CLOCK_THREAD_CPUTIME_ID) + ms * 1000000u;
    while (clock_ns(CLOCK_THREAD_CPUTIME_ID) < end_ns) {
    }
}

static void read_whole(const char *path) {
    static char block[128 * 1024];
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) fail(path);
    ssize_t got;
    while ((got = read(fd, block, sizeof block)) > 0) {
    }
    if (got < 0) fail(path);
    close(fd);
}

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_barrier_t held;
static uint64_t hold_ms;
static int holder_runs;

static void *hold(void *unused) {
    pthread_mutex_lock(&lock);
    pthread_barrier_wait(&held);
    if (holder_runs) {
        spin_ms(hold_ms);
    } else {
        sleep_ms(hold_ms);
    }
    pthread_mutex_unlock(&lock);
    return unused;
}

static void wait_for_lock(void) {
    pthread_t holder;
    pthread_barrier_init(&held, NULL, 2);
    if (pthread_create(&holder, NULL, hold, NULL)) fail("pthread_create");
    pthread_barrier_wait(&held);
    pthread_mutex_lock(&lock);
}

int main(int argc, char **argv) {
    uint64_t main_ns = boottime_ns();
    if (argc < 4) {
        errno = EINVAL;
        fail("usage: cause CAUSE REPORT ARGUMENT ...");
    }
    const char *cause = argv[1];
    uint64_t ms = strtoull(argv[3], NULL, 10);
    if (!strcmp(cause, "queue")) {
        cpu_set_t one;
        CPU_ZERO(&one);
        CPU_SET(argc > 4 ? atoi(argv[4]) : 0, &one);
        if (sched_setaffinity(0, sizeof one, &one)) fail("sched_setaffinity");
    }
    struct charge before = charged();
    uint64_t begin_ns = boottime_ns();
    if (!strcmp(cause, "spin") || !strcmp(cause, "queue")) {
        spin_ms(ms);
    } else if (!strcmp(cause, "sleep")) {
        sleep_ms(ms);
    } else if (!strcmp(cause, "read")) {
        read_whole(argv[3]);
    } else if (!strcmp(cause, "lock-idle") || !strcmp(cause, "lock-busy")) {
        hold_ms = ms;
        holder_runs = !strcmp(cause, "lock-busy");
        wait_for_lock();
    } else {
        errno = EINVAL;
        fail(cause);
    }
    uint64_t end_ns = boottime_ns();
    struct charge after = charged();
    listen_somewhere();
    uint64_t ready_ns = boottime_ns();
    say(argv[2],
        "{\"main_ns\":%" PRIu64 ",\"ready_ns\":%" PRIu64 ",\"pid\":%d,\"start_ticks\":%" PRIu64
        ",\"begin_ns\":%" PRIu64 ",\"end_ns\":%" PRIu64 ",\"run_ns\":%" PRIu64
        ",\"delay_ns\":%" PRIu64 ",\"minor_faults\":%" PRIu64 ",\"major_faults\":%" PRIu64
        ",\"read_bytes\":%" PRIu64 "}",
        main_ns, ready_ns, getpid(), start_ticks(), begin_ns, end_ns,
        after.run_ns - before.run_ns, after.delay_ns - before.delay_ns,
        after.minor_faults - before.minor_faults, after.major_faults - before.major_faults,
        after.read_bytes - before.read_bytes);
    linger();
    return 0;
}
