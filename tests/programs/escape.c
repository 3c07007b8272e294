// Tries to get out of a sandbox in every way that it knows: `escape FILE SOCKET`, where FILE is a
// path that only the node has, and SOCKET the name of an abstract socket that the node listens on.
//
// One line for each attempt: its name, and `out` or what the kernel said. Each attempt is made by a
// process of its own, and changes nothing where it succeeds: what could be written is only opened.
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/capability.h>
#include <linux/netlink.h>
#include <linux/perf_event.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/personality.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const char *file, *socket_name;

// 0 if a call has done what it should not have done, else why not.
static int of(long result) { return result < 0 ? errno : 0; }

static int readable(const char *path) { return of(open(path, O_RDONLY | O_NONBLOCK)); }
static int writable(const char *path) { return of(open(path, O_WRONLY | O_NONBLOCK)); }

// Whether a number is of this process, or of the one that makes the attempts.
static int own(int pid) { return pid == getpid() || pid == getppid(); }

// Out if `below` can be read through `link` of any process but those of this sandbox's function.
static int through_proc(const char *link, const char *below) {
    DIR *proc = opendir("/proc");
    if (!proc) return errno;
    int why = ENOENT;
    for (struct dirent *entry; (entry = readdir(proc));) {
        char path[1024];
        snprintf(path, sizeof path, "/proc/%s/%s%s", entry->d_name, link, below);
        int error = readable(path);
        if (!error) return 0;
        if (error != ENOENT && error != ENOTDIR) why = error;
    }
    return why;
}

static int file_of_the_node(void) { return readable(file); }
static int file_above_the_root(void) {
    char path[1024];
    snprintf(path, sizeof path, "/../../../../../../../..%s", file);
    if (chdir("/") || chdir("..")) return errno;
    return readable(path) ? readable(path + 4) : 0;
}
static int proc_root(void) { return through_proc("root", file); }
static int proc_cwd(void) {
    char path[1024];
    snprintf(path, sizeof path, "/../../../../../../../..%s", file);
    return through_proc("cwd", path);
}
static int proc_fd(void) {
    char path[64];
    for (int pid = 1; pid < 40000; pid++) {
        snprintf(path, sizeof path, "/proc/%d/fd", pid);
        if (!own(pid) && opendir(path)) return 0;
    }
    return ENOENT;
}
static int first_process_is_seen(void) {
    struct stat there;
    return of(stat("/proc/1/status", &there));
}
static int core_pattern(void) { return writable("/proc/sys/kernel/core_pattern"); }
static int modprobe_path(void) { return writable("/proc/sys/kernel/modprobe"); }
static int sysrq(void) { return writable("/proc/sysrq-trigger"); }
static int kernel_memory(void) { return readable("/dev/mem") ? readable("/dev/kmem") : 0; }
// What is masked can be opened, and is empty.
static int not_empty(const char *path) {
    char bytes[8192];
    int one = open(path, O_RDONLY | O_NONBLOCK);
    if (one < 0) return errno;
    long got = read(one, bytes, sizeof bytes);
    return got < 0 ? errno : got == 0 ? ENODATA : 0;
}
static int kernel_log(void) { return not_empty("/dev/kmsg") ? not_empty("/proc/kmsg") : 0; }
static int kernel_core(void) { return not_empty("/proc/kcore"); }
static int kernel_symbols(void) { return not_empty("/proc/kallsyms"); }
static int sys(void) { return opendir("/sys/kernel") ? 0 : errno; }

static int mounted(const char *kind, const char *options) {
    mkdir("/tmp/mounted", 0700);
    if (mount("none", "/tmp/mounted", kind, 0, options)) return errno;
    umount("/tmp/mounted");
    return 0;
}
static int mount_cgroup2(void) { return mounted("cgroup2", NULL); }
static int mount_cgroup1(void) { return mounted("cgroup", "none,name=escape"); }
static int mount_proc(void) { return mounted("proc", NULL); }
static int mount_new(void) { return of(syscall(SYS_fsopen, "tmpfs", 0)); }
static int release_agent(void) {
    FILE *mounts = fopen("/proc/self/mountinfo", "r");
    char line[4096];
    while (mounts && fgets(line, sizeof line, mounts))
        if (strstr(line, " - cgroup")) return 0;
    return opendir("/sys/fs/cgroup") ? 0 : errno;
}
static int unmask(void) { return of(umount2("/proc/sys", MNT_DETACH)); }
static int change_root(void) { return of(chroot("/tmp")); }
static int pivot(void) { return of(syscall(SYS_pivot_root, "/tmp", "/tmp")); }
static int file_handle(void) {
    struct { struct file_handle head; unsigned number[2]; } root = {{8, 1}, {2, 0}};
    int directory = open("/", O_RDONLY);
    return of(open_by_handle_at(directory, &root.head, O_RDONLY));
}

static int trace(void) { return of(ptrace(PTRACE_SEIZE, getppid(), 0, 0)); }
static int trace_first(void) { return of(ptrace(PTRACE_SEIZE, 1, 0, 0)); }
static int read_memory(void) {
    char byte;
    struct iovec here = {&byte, 1}, there = {(void *)8, 1};
    // Who may, is told that there is nothing at this address.
    long got = process_vm_readv(1, &here, 1, &there, 1, 0);
    return got < 0 && errno != EFAULT ? errno : 0;
}
static int memory_file(void) { return readable("/proc/1/mem"); }
static int signal_out(void) {
    int why = ESRCH;
    for (int pid = 1; pid < 40000; pid++) {
        if (own(pid)) continue;
        if (!kill(pid, 0)) return 0;
        if (errno != ESRCH) why = errno;
    }
    return why;
}
static int take_descriptor(void) {
    int process = syscall(SYS_pidfd_open, 1, 0);
    if (process < 0) return errno;
    return of(syscall(SYS_pidfd_getfd, process, 0, 0));
}

static int raw_socket(void) { return of(socket(AF_INET, SOCK_RAW, IPPROTO_ICMP)); }
static int packet_socket(void) { return of(socket(AF_PACKET, SOCK_RAW, htons(3))); }
static int netfilter_socket(void) { return of(socket(AF_NETLINK, SOCK_RAW, NETLINK_NETFILTER)); }
static int vm_socket(void) { return of(socket(AF_VSOCK, SOCK_STREAM, 0)); }
static int socket_of_the_node(void) {
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    size_t length = strlen(socket_name);
    memcpy(name.sun_path + 1, socket_name, length);
    int one = socket(AF_UNIX, SOCK_STREAM, 0);
    return of(connect(one, (void *)&name, offsetof(struct sockaddr_un, sun_path) + 1 + length));
}
static int network_of_the_node(void) {
    struct sockaddr_in metadata = {.sin_family = AF_INET, .sin_port = htons(80)};
    metadata.sin_addr.s_addr = htonl(0xa9fea9fe);
    int one = socket(AF_INET, SOCK_DGRAM, 0);
    // Of datagrams this only asks for a route.
    return of(connect(one, (void *)&metadata, sizeof metadata));
}

static int keys(void) { return of(syscall(SYS_keyctl, 0, -3, 0, 0, 0)); }
static int add_key(void) { return of(syscall(SYS_add_key, "user", "escape", "x", 1, -2)); }
static int bpf(void) {
    union bpf_attr map = {.map_type = BPF_MAP_TYPE_ARRAY, .key_size = 4, .value_size = 4, .max_entries = 1};
    return of(syscall(SYS_bpf, BPF_MAP_CREATE, &map, sizeof map));
}
static int perf_events(void) {
    struct perf_event_attr clock = {.type = PERF_TYPE_SOFTWARE, .size = sizeof clock, .config = PERF_COUNT_SW_CPU_CLOCK};
    return of(syscall(SYS_perf_event_open, &clock, -1, 0, -1, 0));
}
static int fault_handler(void) { return of(syscall(SYS_userfaultfd, O_CLOEXEC)); }
static int io_uring(void) {
    char parameters[120] = {0};
    return of(syscall(SYS_io_uring_setup, 1, parameters));
}
static int kexec(void) { return of(syscall(SYS_kexec_load, 0, 0, NULL, 0)); }
static int module(void) {
    // A right of root is asked for before there is a look at what is not there.
    long loaded = syscall(SYS_finit_module, -1, "", 0);
    return loaded < 0 && errno != EBADF ? errno : 0;
}
static int ports(void) { return of(syscall(SYS_iopl, 3)); }
static int clock_of_the_node(void) {
    // It is no time: who may set one is told so.
    struct timespec never = {-1, -1};
    return syscall(SYS_clock_settime, CLOCK_REALTIME, &never) && errno != EINVAL ? errno : 0;
}
static int host_name(void) {
    char name[65];
    return gethostname(name, sizeof name) ? errno : of(sethostname(name, strlen(name)));
}
static int no_randomisation(void) { return of(personality(ADDR_NO_RANDOMIZE)); }

static int device(void) {
    // /dev/mem
    if (mknod("/tmp/device", S_IFCHR | 0600, makedev(1, 1))) return errno;
    unlink("/tmp/device");
    return 0;
}
static int device_directory(void) { return of(open("/dev/new", O_CREAT | O_WRONLY, 0600)); }

static int unshare_user(void) { return of(unshare(CLONE_NEWUSER)); }
static int unshare_mounts(void) { return of(unshare(CLONE_NEWNS)); }
static int started(long child) {
    if (child == 0) _exit(0);
    return of(child);
}
static int clone_user(void) { return started(syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0)); }
static int clone3_user(void) {
    unsigned long long arguments[11] = {CLONE_NEWUSER, 0, 0, 0, SIGCHLD};
    return started(syscall(SYS_clone3, arguments, sizeof arguments));
}
static int join_namespace(void) {
    int first = open("/proc/1/ns/mnt", O_RDONLY);
    return first < 0 ? errno : of(setns(first, 0));
}

static int type_into_terminal(void) { return of(ioctl(0, TIOCSTI, "x")); }
static int type_with_a_wide_number(void) {
    return of(syscall(SYS_ioctl, 0, TIOCSTI | 1ull << 32, "x"));
}
static int terminal(void) { return of(open("/dev/tty", O_RDWR)) ? of(open("/dev/ptmx", O_RDWR)) : 0; }

static int descriptors(void) {
    struct stat what;
    for (int number = 0; number < 4096; number++)
        if (!fstat(number, &what) && (number > 2 || S_ISDIR(what.st_mode) || S_ISSOCK(what.st_mode)))
            return 0;
    return EBADF;
}
static int become_root(void) { return of(setresuid(0, 0, 0)); }
static int more_files(void) {
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max += 1;
    return of(setrlimit(RLIMIT_NOFILE, &limit));
}
static int setuid_program(void) {
    // A copy of this one, that root owns, with the bit set.
    execl("/setuid", "/setuid", "power", NULL);
    return errno;
}
static int power(void) {
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct sets[2] = {0};
    syscall(SYS_capget, &header, sets);
    int some = sets[0].permitted | sets[1].permitted;
    return some || geteuid() != getuid() || geteuid() == 0 ? 0 : EPERM;
}

#define ATTEMPT(name) {#name, name}
static const struct { const char *name; int (*make)(void); } attempts[] = {
    ATTEMPT(file_of_the_node), ATTEMPT(file_above_the_root), ATTEMPT(proc_root), ATTEMPT(proc_cwd),
    ATTEMPT(proc_fd), ATTEMPT(first_process_is_seen), ATTEMPT(core_pattern), ATTEMPT(modprobe_path),
    ATTEMPT(sysrq), ATTEMPT(kernel_memory), ATTEMPT(kernel_log), ATTEMPT(kernel_core), ATTEMPT(kernel_symbols), ATTEMPT(sys),
    ATTEMPT(mount_cgroup2), ATTEMPT(mount_cgroup1), ATTEMPT(mount_proc), ATTEMPT(mount_new),
    ATTEMPT(release_agent), ATTEMPT(unmask), ATTEMPT(change_root), ATTEMPT(pivot),
    ATTEMPT(file_handle), ATTEMPT(trace), ATTEMPT(trace_first), ATTEMPT(read_memory),
    ATTEMPT(memory_file), ATTEMPT(signal_out), ATTEMPT(take_descriptor), ATTEMPT(raw_socket),
    ATTEMPT(packet_socket), ATTEMPT(netfilter_socket), ATTEMPT(vm_socket),
    ATTEMPT(socket_of_the_node), ATTEMPT(network_of_the_node), ATTEMPT(keys), ATTEMPT(add_key),
    ATTEMPT(bpf), ATTEMPT(perf_events), ATTEMPT(fault_handler), ATTEMPT(io_uring), ATTEMPT(kexec),
    ATTEMPT(module), ATTEMPT(ports), ATTEMPT(clock_of_the_node), ATTEMPT(host_name),
    ATTEMPT(no_randomisation), ATTEMPT(device), ATTEMPT(device_directory), ATTEMPT(unshare_user),
    ATTEMPT(unshare_mounts), ATTEMPT(clone_user), ATTEMPT(clone3_user), ATTEMPT(join_namespace),
    ATTEMPT(type_into_terminal), ATTEMPT(type_with_a_wide_number), ATTEMPT(terminal),
    ATTEMPT(descriptors), ATTEMPT(become_root), ATTEMPT(more_files), ATTEMPT(setuid_program),
    ATTEMPT(power),
};

int main(int count, char **arguments) {
    if (count == 2) return power();
    if (count != 3) return 2;
    file = arguments[1];
    socket_name = arguments[2];
    for (size_t i = 0; i < sizeof attempts / sizeof *attempts; i++) {
        pid_t child = fork();
        if (child == 0) _exit(attempts[i].make());
        int status;
        waitpid(child, &status, 0);
        int why = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
        const char *said = why == -1 ? "killed" : why ? strerrorname_np(why) : "out";
        printf("%s %s\n", attempts[i].name, said);
    }
    return 0;
}
