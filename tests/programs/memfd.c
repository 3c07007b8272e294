/* memfd COMMAND ...: copies COMMAND into memory that no path names, and execs that. */
#include "report.h"

#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>

extern char **environ;

int main(int argc, char **argv) {
    if (argc < 2) {
        errno = EINVAL;
        fail("usage: memfd COMMAND ...");
    }
    int from = open(argv[1], O_RDONLY | O_CLOEXEC);
    struct stat stat;
    if (from < 0 || fstat(from, &stat)) fail(argv[1]);
    int to = memfd_create("hearth-program", MFD_CLOEXEC);
    if (to < 0) fail("memfd_create");
    for (off_t done = 0; done < stat.st_size;) {
        if (sendfile(to, from, &done, (size_t)(stat.st_size - done)) <= 0) fail("sendfile");
    }
    fexecve(to, argv + 1, environ);
    fail("fexecve");
}
