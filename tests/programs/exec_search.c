/* exec_search REPORT MS COMMAND ...: as a search of PATH does, tries to exec what is not there,
 * what is no program and what may not be run, MS apart; then COMMAND, having said when. */
#include "report.h"

#include <sys/stat.h>

int main(int argc, char **argv) {
    if (argc < 4) {
        errno = EINVAL;
        fail("usage: exec_search REPORT MS COMMAND ...");
    }
    uint64_t ms = strtoull(argv[2], NULL, 10);
    const char *missing = "/nonexistent/hearth-program";
    const char *refused[] = {missing, "/proc/self/status", "/"};
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        execv(refused[i], argv + 3);
        sleep_ms(ms);
    }
    say(argv[1], "{\"exec_ns\":%" PRIu64 ",\"pid\":%d}", boottime_ns(), getpid());
    execv(argv[3], argv + 3);
    fail(argv[3]);
}
