/* oom_oracle CGROUP VARIANT MIB: goes into CGROUP (a directory, or `-` to stay) and is killed there
 * for want of memory, as VARIANT says. Before that every thread that is going to die says where it
 * will be: the range of its innermost function and the addresses that the functions above return
 * to. Built with frame pointers, and so that no function takes the place of its caller. */
#include "report.h"

#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

enum { MEMBERS = 2, THREADS = 99, PAGE = 4096 };

#define FRAME __attribute__((noinline, noclone))
#define INNERMOST FRAME __attribute__((section("innermost")))
extern const char __start_innermost[], __stop_innermost[];

/* What a thread does in the end. */
enum end { TOUCH, READ, REST };

struct last {
    enum end end;
    size_t bytes;
    /* Where the three functions return to, innermost first. */
    void *returns[3];
};

static void say_frames(const struct last *last) {
    say("-",
        "{\"pid\":%d,\"tid\":%d,\"low\":%" PRIu64 ",\"high\":%" PRIu64 ",\"returns\":[%" PRIu64
        ",%" PRIu64 ",%" PRIu64 "]}",
        getpid(), (int)syscall(SYS_gettid), (uint64_t)__start_innermost,
        (uint64_t)__stop_innermost, (uint64_t)last->returns[0], (uint64_t)last->returns[1],
        (uint64_t)last->returns[2]);
}

static char *room(size_t bytes) {
    char *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                    -1, 0);
    if (at == MAP_FAILED) fail("mmap");
    return at;
}

/* Not the library's wrappers: these have no frame pointer, and the frame above would be missed. */
static inline __attribute__((always_inline)) long call(long number, long a, long b, long c) {
    long result;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(a), "S"(b), "d"(c)
                     : "rcx", "r11", "memory");
    return result;
}

INNERMOST static void touch(char *at, size_t bytes, struct last *last) {
    last->returns[0] = __builtin_return_address(0);
    say_frames(last);
    for (size_t i = 0; i < bytes; i += PAGE) ((volatile char *)at)[i] = 1;
}

INNERMOST static void take(int zeros, char *at, size_t bytes, struct last *last) {
    last->returns[0] = __builtin_return_address(0);
    say_frames(last);
    while (call(SYS_read, zeros, (long)at, (long)bytes) > 0) at += bytes / 2;
}

INNERMOST static void rest(int told, struct last *last) {
    last->returns[0] = __builtin_return_address(0);
    say_frames(last);
    char byte = 0;
    /* Whoever waits for it may have this one killed before it returns. */
    if (told >= 0) call(SYS_write, told, (long)&byte, 1);
    for (;;) call(SYS_pause, 0, 0, 0);
}

FRAME static void inner(struct last *last, int fd) {
    last->returns[1] = __builtin_return_address(0);
    switch (last->end) {
    case TOUCH: touch(room(last->bytes), last->bytes, last); break;
    case READ: take(fd, room(2 * last->bytes), last->bytes, last); break;
    case REST: rest(fd, last); break;
    }
    __asm__ volatile("");
}

FRAME static void outer(struct last *last, int fd) {
    last->returns[2] = __builtin_return_address(0);
    inner(last, fd);
    __asm__ volatile("");
}

static int told[2];

static void *resting(void *unused) {
    struct last last = {.end = REST};
    outer(&last, told[1]);
    return unused;
}

/* The child ends with its parent. */
static pid_t child(void) {
    pid_t parent = getpid(), child = fork();
    if (child < 0) fail("fork");
    if (!child) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent) _exit(0);
    }
    return child;
}

static void wait_for_word(void) {
    char byte;
    if (read(told[0], &byte, 1) != 1) fail("wait for the others");
}

static void enter(const char *cgroup) {
    char path[512];
    snprintf(path, sizeof path, "%s/cgroup.procs", cgroup);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0 || write(fd, "0", 1) != 1) fail(path);
    close(fd);
}

static void likely(void) {
    int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
    if (fd < 0 || write(fd, "1000", 4) != 4) fail("oom_score_adj");
    close(fd);
}

int main(int argc, char **argv) {
    if (argc != 4) {
        errno = EINVAL;
        fail("usage: oom_oracle CGROUP VARIANT MIB");
    }
    const char *variant = argv[2];
    struct last last = {.end = TOUCH, .bytes = strtoull(argv[3], NULL, 10) << 20};
    int fd = -1;
    if (strcmp(argv[1], "-")) enter(argv[1]);
    if (pipe(told)) fail("pipe");
    if (!strcmp(variant, "read")) {
        last.end = READ;
        fd = open("/dev/zero", O_RDONLY | O_CLOEXEC);
        if (fd < 0) fail("/dev/zero");
    } else if (!strcmp(variant, "idle")) {
        /* The other asks for the last of the memory and this one, the larger, has to go. */
        if (!child()) {
            wait_for_word();
            /* Too much for both, and not for one. */
            size_t rest = last.bytes / 3;
            memset(room(rest), 1, rest);
            pause();
        }
        size_t most = last.bytes / 2;
        memset(room(most), 1, most);
        last.end = REST;
        fd = told[1];
    } else if (!strcmp(variant, "threads")) {
        pthread_t thread;
        pthread_attr_t small;
        pthread_attr_init(&small);
        pthread_attr_setstacksize(&small, 64 * 1024);
        for (int i = 0; i < THREADS; i++)
            if (pthread_create(&thread, &small, resting, NULL)) fail("pthread_create");
        for (int i = 0; i < THREADS; i++) wait_for_word();
    } else if (!strcmp(variant, "fork")) {
        if (child()) {
            int status;
            if (wait(&status) < 0 || !WIFSIGNALED(status)) fail("the child lives");
            return 0;
        }
    } else if (!strcmp(variant, "group")) {
        for (int i = 0; i < MEMBERS; i++)
            if (!child()) resting(NULL);
        for (int i = 0; i < MEMBERS; i++) wait_for_word();
    } else if (!strcmp(variant, "global")) {
        likely();
    } else if (strcmp(variant, "fault")) {
        errno = EINVAL;
        fail(variant);
    }
    outer(&last, fd);
    return 0;
}
