//! The list.

use std::collections::BTreeSet;
use std::str::FromStr;

use syscalls::Sysno;

/// Why a call cannot be added to a profile.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProfileError {
    /// No call of this kernel's interface.
    #[error("system call `{0}`: there is none of this name; names are as in `man 2 syscalls`")]
    Unknown(String),
    /// A sandbox that may do this is none.
    #[error(
        "system call `{0}` reaches out of the sandbox or into the kernel's own state: it cannot be allowed"
    )]
    Never(Sysno),
}

/// What one function may call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    added: BTreeSet<Sysno>,
}

impl Default for Profile {
    /// What ordinary programs need, and the runtimes of Rust, Go, Python, Node and the JVM.
    fn default() -> Self {
        Self {
            added: BTreeSet::new(),
        }
    }
}

impl Profile {
    /// Allows one more call by its name, whatever its arguments.
    pub fn add(&mut self, name: &str) -> Result<(), ProfileError> {
        let call = Sysno::from_str(name)
            .map_err(|()| ProfileError::Unknown(name.chars().take(64).collect()))?;
        if NEVER.contains(&call) {
            return Err(ProfileError::Never(call));
        }
        self.added.insert(call);
        Ok(())
    }

    /// All that are allowed whatever their arguments.
    pub(super) fn allowed(&self) -> BTreeSet<Sysno> {
        self.added.iter().chain(ALLOWED).copied().collect()
    }
}

/// Calls for nobody: they change what is outside of the sandbox, load code into the kernel, or
/// undo what the sandbox is made of.
const NEVER: &[Sysno] = &[
    Sysno::_sysctl,
    Sysno::acct,
    Sysno::adjtimex,
    Sysno::bpf,
    Sysno::chroot,
    Sysno::clock_adjtime,
    Sysno::clock_settime,
    Sysno::clone3,
    Sysno::create_module,
    Sysno::delete_module,
    Sysno::finit_module,
    Sysno::fsconfig,
    Sysno::fsmount,
    Sysno::fsopen,
    Sysno::fspick,
    Sysno::init_module,
    Sysno::ioperm,
    Sysno::iopl,
    Sysno::kexec_file_load,
    Sysno::kexec_load,
    Sysno::mount,
    Sysno::mount_setattr,
    Sysno::move_mount,
    Sysno::nfsservctl,
    Sysno::open_by_handle_at,
    Sysno::open_tree,
    Sysno::pivot_root,
    Sysno::quotactl,
    Sysno::quotactl_fd,
    Sysno::reboot,
    Sysno::setdomainname,
    Sysno::sethostname,
    Sysno::setns,
    Sysno::settimeofday,
    Sysno::swapoff,
    Sysno::swapon,
    Sysno::syslog,
    Sysno::umount2,
    Sysno::unshare,
    Sysno::vhangup,
];

/// Allowed whatever their arguments. Calls whose arguments decide (`clone`, `socket`, `ioctl`,
/// `personality`) are in the filter.
const ALLOWED: &[Sysno] = &[
    Sysno::accept,
    Sysno::accept4,
    Sysno::access,
    Sysno::alarm,
    Sysno::arch_prctl,
    Sysno::bind,
    Sysno::brk,
    Sysno::cachestat,
    Sysno::capget,
    Sysno::capset,
    Sysno::chdir,
    Sysno::chmod,
    Sysno::chown,
    Sysno::clock_getres,
    Sysno::clock_gettime,
    Sysno::clock_nanosleep,
    Sysno::close,
    Sysno::close_range,
    Sysno::connect,
    Sysno::copy_file_range,
    Sysno::creat,
    Sysno::dup,
    Sysno::dup2,
    Sysno::dup3,
    Sysno::epoll_create,
    Sysno::epoll_create1,
    Sysno::epoll_ctl,
    Sysno::epoll_pwait,
    Sysno::epoll_pwait2,
    Sysno::epoll_wait,
    Sysno::eventfd,
    Sysno::eventfd2,
    Sysno::execve,
    Sysno::execveat,
    Sysno::exit,
    Sysno::exit_group,
    Sysno::faccessat,
    Sysno::faccessat2,
    Sysno::fadvise64,
    Sysno::fallocate,
    Sysno::fchdir,
    Sysno::fchmod,
    Sysno::fchmodat,
    Sysno::fchmodat2,
    Sysno::fchown,
    Sysno::fchownat,
    Sysno::fcntl,
    Sysno::fdatasync,
    Sysno::fgetxattr,
    Sysno::flistxattr,
    Sysno::flock,
    Sysno::fork,
    Sysno::fremovexattr,
    Sysno::fsetxattr,
    Sysno::fstat,
    Sysno::fstatfs,
    Sysno::fsync,
    Sysno::ftruncate,
    Sysno::futex,
    Sysno::futex_requeue,
    Sysno::futex_wait,
    Sysno::futex_waitv,
    Sysno::futex_wake,
    Sysno::futimesat,
    Sysno::getcpu,
    Sysno::getcwd,
    Sysno::getdents,
    Sysno::getdents64,
    Sysno::getegid,
    Sysno::geteuid,
    Sysno::getgid,
    Sysno::getgroups,
    Sysno::getitimer,
    Sysno::getpeername,
    Sysno::getpgid,
    Sysno::getpgrp,
    Sysno::getpid,
    Sysno::getppid,
    Sysno::getpriority,
    Sysno::getrandom,
    Sysno::getresgid,
    Sysno::getresuid,
    Sysno::getrlimit,
    Sysno::getrusage,
    Sysno::getsid,
    Sysno::getsockname,
    Sysno::getsockopt,
    Sysno::gettid,
    Sysno::gettimeofday,
    Sysno::getuid,
    Sysno::getxattr,
    Sysno::inotify_add_watch,
    Sysno::inotify_init,
    Sysno::inotify_init1,
    Sysno::inotify_rm_watch,
    Sysno::io_cancel,
    Sysno::io_destroy,
    Sysno::io_getevents,
    Sysno::io_pgetevents,
    Sysno::io_setup,
    Sysno::io_submit,
    Sysno::ioprio_get,
    Sysno::ioprio_set,
    Sysno::kill,
    Sysno::landlock_add_rule,
    Sysno::landlock_create_ruleset,
    Sysno::landlock_restrict_self,
    Sysno::lchown,
    Sysno::lgetxattr,
    Sysno::link,
    Sysno::linkat,
    Sysno::listen,
    Sysno::listxattr,
    Sysno::llistxattr,
    Sysno::lremovexattr,
    Sysno::lseek,
    Sysno::lsetxattr,
    Sysno::lstat,
    Sysno::madvise,
    Sysno::membarrier,
    Sysno::memfd_create,
    Sysno::mincore,
    Sysno::mkdir,
    Sysno::mkdirat,
    Sysno::mknod,
    Sysno::mknodat,
    Sysno::mlock,
    Sysno::mlock2,
    Sysno::mlockall,
    Sysno::mmap,
    Sysno::modify_ldt,
    Sysno::mprotect,
    Sysno::mq_getsetattr,
    Sysno::mq_notify,
    Sysno::mq_open,
    Sysno::mq_timedreceive,
    Sysno::mq_timedsend,
    Sysno::mq_unlink,
    Sysno::mremap,
    Sysno::mseal,
    Sysno::msgctl,
    Sysno::msgget,
    Sysno::msgrcv,
    Sysno::msgsnd,
    Sysno::msync,
    Sysno::munlock,
    Sysno::munlockall,
    Sysno::munmap,
    Sysno::nanosleep,
    Sysno::newfstatat,
    Sysno::open,
    Sysno::openat,
    Sysno::openat2,
    Sysno::pause,
    Sysno::pidfd_open,
    Sysno::pidfd_send_signal,
    Sysno::pipe,
    Sysno::pipe2,
    Sysno::pkey_alloc,
    Sysno::pkey_free,
    Sysno::pkey_mprotect,
    Sysno::poll,
    Sysno::ppoll,
    Sysno::prctl,
    Sysno::pread64,
    Sysno::preadv,
    Sysno::preadv2,
    Sysno::prlimit64,
    Sysno::pselect6,
    Sysno::pwrite64,
    Sysno::pwritev,
    Sysno::pwritev2,
    Sysno::read,
    Sysno::readahead,
    Sysno::readlink,
    Sysno::readlinkat,
    Sysno::readv,
    Sysno::recvfrom,
    Sysno::recvmmsg,
    Sysno::recvmsg,
    Sysno::remap_file_pages,
    Sysno::removexattr,
    Sysno::rename,
    Sysno::renameat,
    Sysno::renameat2,
    Sysno::restart_syscall,
    Sysno::rmdir,
    Sysno::rseq,
    Sysno::rt_sigaction,
    Sysno::rt_sigpending,
    Sysno::rt_sigprocmask,
    Sysno::rt_sigqueueinfo,
    Sysno::rt_sigreturn,
    Sysno::rt_sigsuspend,
    Sysno::rt_sigtimedwait,
    Sysno::rt_tgsigqueueinfo,
    Sysno::sched_get_priority_max,
    Sysno::sched_get_priority_min,
    Sysno::sched_getaffinity,
    Sysno::sched_getattr,
    Sysno::sched_getparam,
    Sysno::sched_getscheduler,
    Sysno::sched_rr_get_interval,
    Sysno::sched_setaffinity,
    Sysno::sched_setattr,
    Sysno::sched_setparam,
    Sysno::sched_setscheduler,
    Sysno::sched_yield,
    Sysno::seccomp,
    Sysno::select,
    Sysno::semctl,
    Sysno::semget,
    Sysno::semop,
    Sysno::semtimedop,
    Sysno::sendfile,
    Sysno::sendmmsg,
    Sysno::sendmsg,
    Sysno::sendto,
    Sysno::set_robust_list,
    Sysno::set_tid_address,
    Sysno::setfsgid,
    Sysno::setfsuid,
    Sysno::setgid,
    Sysno::setgroups,
    Sysno::setitimer,
    Sysno::setpgid,
    Sysno::setpriority,
    Sysno::setregid,
    Sysno::setresgid,
    Sysno::setresuid,
    Sysno::setreuid,
    Sysno::setrlimit,
    Sysno::setsid,
    Sysno::setsockopt,
    Sysno::setuid,
    Sysno::setxattr,
    Sysno::shmat,
    Sysno::shmctl,
    Sysno::shmdt,
    Sysno::shmget,
    Sysno::shutdown,
    Sysno::sigaltstack,
    Sysno::signalfd,
    Sysno::signalfd4,
    Sysno::socketpair,
    Sysno::splice,
    Sysno::stat,
    Sysno::statfs,
    Sysno::statx,
    Sysno::symlink,
    Sysno::symlinkat,
    Sysno::sync,
    Sysno::sync_file_range,
    Sysno::syncfs,
    Sysno::sysinfo,
    Sysno::tee,
    Sysno::tgkill,
    Sysno::time,
    Sysno::timer_create,
    Sysno::timer_delete,
    Sysno::timer_getoverrun,
    Sysno::timer_gettime,
    Sysno::timer_settime,
    Sysno::timerfd_create,
    Sysno::timerfd_gettime,
    Sysno::timerfd_settime,
    Sysno::times,
    Sysno::tkill,
    Sysno::truncate,
    Sysno::umask,
    Sysno::uname,
    Sysno::unlink,
    Sysno::unlinkat,
    Sysno::utime,
    Sysno::utimensat,
    Sysno::utimes,
    Sysno::vfork,
    Sysno::vmsplice,
    Sysno::wait4,
    Sysno::waitid,
    Sysno::write,
    Sysno::writev,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_reaches_out_cannot_be_added() {
        let mut profile = Profile::default();
        assert_eq!(profile.add("mount"), Err(ProfileError::Never(Sysno::mount)));
        assert_eq!(
            profile.add("no_such"),
            Err(ProfileError::Unknown("no_such".into()))
        );
        assert_eq!(profile, Profile::default());
        assert_eq!(profile.add("io_uring_setup"), Ok(()));
        assert!(profile.allowed().contains(&Sysno::io_uring_setup));
        assert!(
            !Profile::default()
                .allowed()
                .contains(&Sysno::io_uring_setup)
        );
        assert!(ALLOWED.iter().all(|call| !NEVER.contains(call)));
        assert!(
            ALLOWED.is_sorted_by_key(Sysno::name),
            "in order, so that one is found"
        );
    }
}
