/* Dies for want of memory, in a place that it knows. Usage: MODE PROCS REPORT, where PROCS is the
 * cgroup.procs of the cgroup to die in and MODE is
 *   fault    writes to fresh memory itself
 *   global   the same, and nobody is to die before it
 *   read     lets read(2) write to it
 *   idle     holds memory and waits for another to ask for more
 *   ask      asks for more and writes no report: an idle one is larger
 *   threads  as fault, beside 99 threads that wait
 *   protect  as threads, and one thread never leaves its mappings alone
 *   child    as fault, in a forked child
 * The report is one line: its pid, the callers of the place by the C library's own unwinder,
 * innermost first, and where the function begins and ends in which it is. */
#define _GNU_SOURCE
#include <execinfo.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define MIB (1UL << 20)
/* More than any limit of a test. */
#define MEMORY (1024 * MIB)
#define THREADS 99
/* eat, its three callers, main. */
#define FRAMES 5

static const char *report;
static const char *mode;
static int filled;

/* One section, so that the linker says where it begins and ends. */
extern const char __start_eat_code[], __stop_eat_code[];

static void tell(void)
{
	void *frames[FRAMES + 3];
	char line[512];
	/* Its own frame and eat's, which is told by the section. */
	int count = backtrace(frames, FRAMES + 3);
	int at = snprintf(line, sizeof line, "{\"pid\":%d,\"begin\":%lu,\"end\":%lu,\"callers\":[",
			  getpid(), (unsigned long)__start_eat_code, (unsigned long)__stop_eat_code);
	for (int i = 2; i < count && i < FRAMES + 1; i++)
		at += snprintf(line + at, sizeof line - at, "%s%lu", i > 2 ? "," : "",
			       (unsigned long)frames[i]);
	at += snprintf(line + at, sizeof line - at, "]}\n");
	int fd = open(report, O_WRONLY | O_CREAT | O_APPEND, 0600);
	if (fd < 0 || write(fd, line, at) != at)
		_exit(3);
	close(fd);
}

__attribute__((noinline, section("eat_code"))) static long eat(void)
{
	unsigned long size = !strcmp(mode, "idle") ? 20 * MIB : MEMORY;
	volatile char *memory = mmap(NULL, size, PROT_READ | PROT_WRITE,
				     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (memory == MAP_FAILED)
		_exit(4);
	if (strcmp(mode, "ask") && strcmp(mode, "idle"))
		tell();
	if (!strcmp(mode, "read")) {
		int zero = open("/dev/zero", O_RDONLY);
		for (unsigned long at = 0; at < size; at += MIB)
			if (read(zero, (char *)memory + at, MIB) != MIB)
				break;
		return memory[MIB];
	}
	for (unsigned long at = 0; at < size; at += 4096)
		memory[at] = 1;
	if (!strcmp(mode, "idle")) {
		tell();
		for (;;)
			pause();
	}
	return memory[MIB];
}

__attribute__((noinline)) static long third(void)
{
	return eat() + 1;
}

__attribute__((noinline)) static long second(void)
{
	return third() + 1;
}

__attribute__((noinline)) static long first(void)
{
	return second() + 1;
}

static void *wait_for_ever(void *none)
{
	__atomic_add_fetch(&filled, 1, __ATOMIC_RELAXED);
	for (;;)
		pause();
	return none;
}

static void *protect(void *memory)
{
	for (int turn = 0;; turn++)
		mprotect(memory, 8 * MIB, turn % 2 ? PROT_READ : PROT_READ | PROT_WRITE);
	return NULL;
}

int main(int argc, char **argv)
{
	if (argc != 4)
		return 2;
	mode = argv[1];
	report = argv[3];
	/* Loads the unwinder, which takes memory. */
	void *frame[1];
	backtrace(frame, 1);
	if (!strcmp(mode, "global")) {
		int likely = open("/proc/self/oom_score_adj", O_WRONLY);
		if (likely < 0 || write(likely, "1000", 4) != 4)
			return 3;
		close(likely);
	}
	int procs = open(argv[2], O_WRONLY);
	if (procs < 0 || write(procs, "0", 1) != 1)
		return 3;
	close(procs);
	if (!strcmp(mode, "child")) {
		pid_t child = fork();
		if (child > 0) {
			int status;
			waitpid(child, &status, 0);
			return WIFSIGNALED(status) ? 0 : 5;
		}
	}
	if (!strcmp(mode, "threads") || !strcmp(mode, "protect")) {
		pthread_attr_t attributes;
		pthread_attr_init(&attributes);
		pthread_attr_setstacksize(&attributes, 64 << 10);
		pthread_t thread;
		for (int i = 0; i < THREADS; i++)
			if (pthread_create(&thread, &attributes, wait_for_ever, NULL))
				return 6;
		while (__atomic_load_n(&filled, __ATOMIC_RELAXED) < THREADS)
			usleep(1000);
		if (!strcmp(mode, "protect")) {
			char *memory = mmap(NULL, 8 * MIB, PROT_READ | PROT_WRITE,
					    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
			if (memory == MAP_FAILED)
				return 6;
			/* In every page, so that it takes its time. */
			for (unsigned long at = 0; at < 8 * MIB; at += 4096)
				memory[at] = 1;
			if (pthread_create(&thread, &attributes, protect, memory))
				return 6;
		}
	}
	return (int)(first() & 1);
}
