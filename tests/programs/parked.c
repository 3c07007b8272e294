// Stands in for hearth-init: all that the spawner knows of it, and orders on the sandbox's socket,
// one letter each: x ends it, m takes 256 MiB of memory, f leaves a process behind that waits.
#include <string.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

enum { CONTROL = 3, LISTENER = 4 };

static void obey(char order) {
    if (order == 'x')
        _exit(7);
    if (order == 'm') {
        size_t size = 256 << 20;
        memset(malloc(size), 1, size);
    }
    if (order == 'f' && fork() == 0)
        for (;;)
            pause();
}

int main(void) {
    char byte;
    if (write(CONTROL, "p", 1) != 1 || read(CONTROL, &byte, 1) != 1 || byte != 'c')
        return 0;
    for (;;) {
        int client = accept(LISTENER, NULL, NULL);
        while (client >= 0 && read(client, &byte, 1) == 1) {
            obey(byte);
            if (write(client, "d", 1) != 1)
                break;
        }
        close(client);
    }
}
