/* hog CPU: wants CPU until it is killed, or its parent ends. */
#include "report.h"

#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>

int main(int argc, char **argv) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(argc > 1 ? atoi(argv[1]) : 0, &one);
    if (sched_setaffinity(0, sizeof one, &one)) fail("sched_setaffinity");
    puts("running");
    fflush(stdout);
    for (volatile uint64_t turns = 0;; turns++) {
    }
}
