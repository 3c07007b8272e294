// A function that makes trouble for the one who looks after it: `misbehave HOW`.
//
// It is ready, takes one request, and never answers it; what it does instead is HOW. It ends when
// it has something to say of that.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static int reach(void) {
    struct sockaddr_in api = {.sin_family = AF_INET,
                              .sin_port = htons(9001),
                              .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&api, sizeof api)) {
        if (fd >= 0) close(fd);
        return -1;
    }
    return fd;
}

static void tell(int fd, const char *text) { (void)!write(fd, text, strlen(text)); }

// Begins the largest answer on many connections, and ends none of them.
static void bodies(void) {
    static char part[64 * 1024];
    for (int i = 0; i < 60; i++) {
        int fd = reach();
        if (fd < 0) continue;
        tell(fd, "POST /2018-06-01/runtime/invocation/x/response HTTP/1.1\r\n"
                 "Host: x\r\nContent-Length: 6291456\r\n\r\n");
        for (int sent = 0; sent < 6291456 - (int)sizeof part;) {
            ssize_t now = send(fd, part, sizeof part, MSG_NOSIGNAL);
            if (now <= 0) break;
            sent += now;
        }
    }
}

// Asks for what is not there, again and again, and never reads that it is not.
static void deaf(void) {
    int fd = reach();
    for (;;) tell(fd, "GET /nothing HTTP/1.1\r\n\r\nGET /nothing HTTP/1.1\r\n\r\n");
}

// What is killed last where memory is short.
static void score(void) {
    const char *try[] = {"-1000", "-900", "-500", "-1", "0"};
    for (unsigned i = 0; i < sizeof try / sizeof *try; i++) {
        int fd = open("/proc/self/oom_score_adj", O_WRONLY);
        if (fd >= 0 && write(fd, try[i], strlen(try[i])) > 0) {
            printf("%s\n", try[i]);
            break;
        }
        if (fd >= 0) close(fd);
    }
    exit(0);
}

// Bytes that nobody reads, in sockets.
static void sockets(void) {
    static char part[1 << 20];
    struct sockaddr_in own = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof own;
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    bind(listener, (struct sockaddr *)&own, length);
    listen(listener, 8);
    getsockname(listener, (struct sockaddr *)&own, &length);
    long sent = 0;
    for (int i = 0; i < 100; i++) {
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
        connect(fd, (struct sockaddr *)&own, sizeof own);
        if (accept(listener, NULL, NULL) < 0) break;
        // The buffer grows while it is filled.
        for (int full = 0; full < 3;) {
            ssize_t now = send(fd, part, sizeof part, MSG_NOSIGNAL);
            if (now > 0) sent += now;
            else full++;
            usleep(1000);
        }
    }
    printf("%ld\n", sent);
    exit(0);
}

static const struct {
    const char *name;
    void (*make)(void);
} ways[] = {{"bodies", bodies}, {"deaf", deaf}, {"score", score}, {"sockets", sockets}};

int main(int argc, char **argv) {
    int fd = reach();
    if (argc < 2 || fd < 0) return 2;
    tell(fd, "GET /2018-06-01/runtime/invocation/next HTTP/1.1\r\nHost: x\r\n\r\n");
    char answer[4096];
    if (read(fd, answer, sizeof answer) <= 0) return 3;
    for (unsigned i = 0; i < sizeof ways / sizeof *ways; i++)
        if (!strcmp(ways[i].name, argv[1])) ways[i].make();
    for (;;) pause();
}
