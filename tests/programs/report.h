/* What every C program of the tests says about itself, by its own clocks. */
#ifndef HEARTH_REPORT_H
#define HEARTH_REPORT_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static inline uint64_t clock_ns(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static inline uint64_t boottime_ns(void) { return clock_ns(CLOCK_BOOTTIME); }

static inline void fail(const char *what) {
    dprintf(2, "%s: %s\n", what, strerror(errno));
    _exit(97);
}

/* Reads a small file whole. */
static inline void slurp(const char *path, char *text, size_t size) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) fail(path);
    ssize_t got = read(fd, text, size - 1);
    if (got < 0) fail(path);
    text[got] = 0;
    close(fd);
}

/* Field 22 of /proc/self/stat: when the process started, in ticks since boot. */
static inline uint64_t start_ticks(void) {
    char text[2048];
    slurp("/proc/self/stat", text, sizeof text);
    char *at = strrchr(text, ')');
    if (!at) fail("/proc/self/stat");
    for (int field = 2; field < 22; field++) at = strchr(at + 1, ' ');
    return strtoull(at + 1, NULL, 10);
}

/* A TCP socket that listens on a free port of the loopback interface. */
static inline int listen_somewhere(void) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof address)) fail("bind");
    if (listen(fd, 16)) fail("listen");
    return fd;
}

/* Appends one line in one write: lines of several processes do not mix. */
__attribute__((format(printf, 2, 3))) static inline void say(const char *path, const char *format,
                                                             ...) {
    char line[1024];
    va_list values;
    va_start(values, format);
    int length = vsnprintf(line, sizeof line - 1, format, values);
    va_end(values);
    line[length++] = '\n';
    int fd = strcmp(path, "-") ? open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666) : 1;
    if (fd < 0 || write(fd, line, (size_t)length) != length) fail(path);
    if (fd != 1) close(fd);
}

/* How long a program stays once it is ready: enough to be seen listening, no more. */
static inline void linger(void) {
    struct timespec rest = {.tv_nsec = 200 * 1000 * 1000};
    nanosleep(&rest, NULL);
}

static inline void sleep_ms(uint64_t ms) {
    struct timespec rest = {.tv_sec = (time_t)(ms / 1000),
                            .tv_nsec = (long)(ms % 1000) * 1000 * 1000};
    while (nanosleep(&rest, &rest) && errno == EINTR) {
    }
}

#endif
