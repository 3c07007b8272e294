/* sandbox REPORT CGROUP COMMAND ...: what a container runtime does, without one: makes CGROUP
 * (a directory's path), then new namespaces, mounts in them, the loopback interface up; enters
 * CGROUP, runs COMMAND there, and removes CGROUP when it has ended. Says when it did each. */
#include "report.h"

#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>

static void enter(const char *cgroup) {
    char path[4096];
    snprintf(path, sizeof path, "%s/cgroup.procs", cgroup);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0 || write(fd, "0", 1) != 1) fail(path);
    close(fd);
}

static void loopback_up(void) {
    struct {
        struct nlmsghdr header;
        struct ifinfomsg link;
    } request = {
        .header = {.nlmsg_len = sizeof request,
                   .nlmsg_type = RTM_NEWLINK,
                   .nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK},
        .link = {.ifi_index = 1, .ifi_flags = IFF_UP, .ifi_change = IFF_UP},
    };
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
    char answer[4096];
    if (fd < 0 || send(fd, &request, sizeof request, 0) != sizeof request ||
        recv(fd, answer, sizeof answer, 0) < 0)
        fail("netlink");
    struct nlmsghdr *header = (struct nlmsghdr *)answer;
    struct nlmsgerr *error = NLMSG_DATA(header);
    if (header->nlmsg_type != NLMSG_ERROR || error->error) fail("RTM_NEWLINK");
    close(fd);
}

int main(int argc, char **argv) {
    if (argc < 4) {
        errno = EINVAL;
        fail("usage: sandbox REPORT CGROUP COMMAND ...");
    }
    uint64_t begin_ns = boottime_ns();
    if (mkdir(argv[2], 0755)) fail(argv[2]);
    uint64_t cgroup_ns = boottime_ns();
    pid_t child = fork();
    if (child < 0) fail("fork");
    if (child == 0) {
        uint64_t forked_ns = boottime_ns();
        enter(argv[2]);
        uint64_t entered_ns = boottime_ns();
        if (unshare(CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWUTS)) fail("unshare");
        uint64_t namespaces_ns = boottime_ns();
        if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL)) fail("mount /");
        if (mount("hearth", "/tmp", "tmpfs", 0, NULL)) fail("mount tmpfs");
        if (umount("/tmp")) fail("umount");
        uint64_t mounts_ns = boottime_ns();
        loopback_up();
        uint64_t network_ns = boottime_ns();
        say(argv[1],
            "{\"begin_ns\":%" PRIu64 ",\"cgroup_ns\":%" PRIu64 ",\"forked_ns\":%" PRIu64
            ",\"entered_ns\":%" PRIu64 ",\"namespaces_ns\":%" PRIu64 ",\"mounts_ns\":%" PRIu64
            ",\"network_ns\":%" PRIu64 ",\"pid\":%d}",
            begin_ns, cgroup_ns, forked_ns, entered_ns, namespaces_ns, mounts_ns, network_ns,
            getpid());
        execv(argv[3], argv + 3);
        fail(argv[3]);
    }
    int status;
    if (waitpid(child, &status, 0) != child) fail("waitpid");
    for (int tries = 0; rmdir(argv[2]); tries++) {
        if (errno != EBUSY || tries == 1000) fail(argv[2]);
        sleep_ms(1);
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : 98;
}
