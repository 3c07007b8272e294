/* What runs in a sandbox: waits for a byte (by then it is in its cgroup), then does as told. */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* So many children that wait, or as many as there may be. */
static void fork_children(long wanted) {
    long forked = 0;
    for (; forked < wanted; forked++) {
        pid_t pid = fork();
        if (pid < 0) {
            break;
        }
        if (pid == 0) {
            for (;;) {
                pause();
            }
        }
    }
    printf("%ld %s\n", forked, forked < wanted && errno == EAGAIN ? "EAGAIN" : "all");
    fflush(stdout);
    pause();
}

/* Children that have children, for ever. */
static void bomb(void) {
    signal(SIGCHLD, SIG_IGN);
    for (;;) {
        if (fork() < 0) {
            sched_yield();
        }
    }
}

static void eat(size_t bytes) {
    char *memory = mmap(0, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) {
        exit(1);
    }
    memset(memory, 1, bytes);
    puts("ate");
}

/* The number at the beginning of the file goes up. */
static void count(const char *path) {
    int file = open(path, O_CREAT | O_RDWR, 0600);
    if (file < 0 || ftruncate(file, sizeof(unsigned long)) != 0) {
        exit(1);
    }
    volatile unsigned long *number =
        mmap(0, sizeof *number, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (number == MAP_FAILED) {
        exit(1);
    }
    for (;;) {
        ++*number;
    }
}

/* Page cache that stays. */
static void cache(const char *path, size_t bytes) {
    static char block[1 << 16];
    int file = open(path, O_CREAT | O_WRONLY, 0600);
    for (size_t written = 0; written < bytes; written += sizeof block) {
        if (file < 0 || write(file, block, sizeof block) != sizeof block) {
            exit(1);
        }
    }
    fsync(file);
}

/* Names that are not there, which the kernel remembers: what stays where no file is on a disk. */
static void names(long wanted) {
    struct stat unused;
    char path[64];
    for (long i = 0; i < wanted; i++) {
        snprintf(path, sizeof path, "/sys/hearth-%d-%ld", getpid(), i);
        stat(path, &unused);
    }
}

int main(int argc, char **argv) {
    char byte;
    if (argc < 2 || read(0, &byte, 1) != 1) {
        return 1;
    }
    const char *what = argv[1], *first = argc > 2 ? argv[2] : "0";
    if (!strcmp(what, "fork")) {
        fork_children(atol(first));
    } else if (!strcmp(what, "bomb")) {
        bomb();
    } else if (!strcmp(what, "eat")) {
        eat(strtoull(first, 0, 10));
    } else if (!strcmp(what, "count")) {
        count(first);
    } else if (!strcmp(what, "cache")) {
        cache(first, strtoull(argc > 3 ? argv[3] : "0", 0, 10));
    } else if (!strcmp(what, "names")) {
        names(atol(first));
    } else if (!strcmp(what, "wait")) {
        pause();
    } else {
        return 1;
    }
    return 0;
}
