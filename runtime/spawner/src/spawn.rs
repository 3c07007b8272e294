//! A new process in namespaces and a cgroup of its own, which becomes `hearth-init`.
//!
//! Between its birth and its program the child is a copy of the spawner: it calls the kernel and
//! nothing else, and holds copies of all that the spawner has open only until it has closed them.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};

use hearth_runtime::cgroup::Cgroup;
use hearth_runtime::id::SandboxId;
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use crate::veth::Link;

/// What every child gets.
#[derive(Debug)]
pub(crate) struct Program {
    /// `hearth-init`.
    pub(crate) init: OwnedFd,
    /// `/dev/null`.
    pub(crate) null: OwnedFd,
}

/// A child that waits for `g` before it runs its program.
#[derive(Debug)]
pub(crate) struct Child {
    pub(crate) pid: u32,
    pub(crate) pidfd: OwnedFd,
    /// A message each way: see the crate's beginning.
    pub(crate) control: OwnedFd,
}

impl Program {
    /// Begins a child in `cgroup`, which listens with `listener`.
    pub(crate) fn spawn(
        &self,
        sandbox: SandboxId,
        uid: u32,
        link: Option<Link>,
        cgroup: &Cgroup,
        listener: BorrowedFd<'_>,
    ) -> io::Result<Child> {
        let (ours, theirs) = rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )?;
        rustix::io::ioctl_fionbio(&ours, true)?;
        let words = [
            "hearth-init".to_owned(),
            "--sandbox".to_owned(),
            sandbox.to_string(),
            "--uid".to_owned(),
            uid.to_string(),
        ];
        let words = words
            .into_iter()
            .chain(link.into_iter().flat_map(Link::words));
        let words = words.map(CString::new).collect::<Result<Vec<_>, _>>()?;
        let mut arguments: Vec<*const c_char> = words.iter().map(|word| word.as_ptr()).collect();
        arguments.push(std::ptr::null());
        let others: Vec<RawFd> = cgroup.other_fds().map(|dir| dir.as_raw_fd()).collect();
        let birth = Birth {
            arguments: &arguments,
            init: self.init.as_raw_fd(),
            null: self.null.as_raw_fd(),
            control: theirs.as_raw_fd(),
            listener: listener.as_raw_fd(),
            others: &others,
        };
        let (pid, pidfd) = clone(cgroup.birth_fd(), &birth)?;
        Ok(Child {
            pid,
            pidfd,
            control: ours,
        })
    }
}

/// `libc` has it in a type that it does not fit into.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

fn clone(v2: Option<BorrowedFd<'_>>, birth: &Birth<'_>) -> io::Result<(u32, OwnedFd)> {
    let flags = libc::CLONE_NEWPID
        | libc::CLONE_NEWNS
        | libc::CLONE_NEWNET
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUTS
        | libc::CLONE_PIDFD;
    let mut pidfd: c_int = -1;
    // SAFETY: all of it is numbers, for which zero is a value.
    let mut how: libc::clone_args = unsafe { std::mem::zeroed() };
    how.flags = flags.cast_unsigned().into();
    how.pidfd = (&raw mut pidfd) as u64;
    how.exit_signal = libc::SIGCHLD.cast_unsigned().into();
    if let Some(v2) = v2 {
        how.flags |= CLONE_INTO_CGROUP;
        how.cgroup = v2.as_raw_fd().cast_unsigned().into();
    }
    // SAFETY: without CLONE_VM this is a fork of a process with one thread; the child does not
    // return from `be_born`, which calls nothing but the kernel.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const how, size_of_val(&how)) };
    if pid == 0 {
        birth.be_born();
    }
    let pid = u32::try_from(pid).map_err(|_| io::Error::last_os_error())?;
    // SAFETY: the kernel has just opened it for us.
    Ok((pid, unsafe { OwnedFd::from_raw_fd(pidfd) }))
}

/// All that a child needs, ready before it is there.
struct Birth<'a> {
    /// Ends with null.
    arguments: &'a [*const c_char],
    init: RawFd,
    null: RawFd,
    control: RawFd,
    listener: RawFd,
    /// Cgroups that it is not born into.
    others: &'a [RawFd],
}

/// Where `hearth-init` finds them.
const CONTROL: c_int = 3;
const LISTENER: c_int = 4;
/// Closed when it runs.
const INIT: c_int = 5;
/// Above all numbers that descriptors are to have in the end.
const ASIDE: c_int = 16;

impl Birth<'_> {
    fn be_born(&self) -> ! {
        for &dir in self.others {
            attach(dir, self.control);
        }
        self.arrange();
        // SAFETY: of these calls none needs more than its arguments, which are valid.
        unsafe {
            let mut none = std::mem::MaybeUninit::uninit();
            libc::sigemptyset(none.as_mut_ptr());
            libc::sigprocmask(libc::SIG_SETMASK, none.as_ptr(), std::ptr::null_mut());
            libc::signal(libc::SIGPIPE, libc::SIG_DFL);
        }
        wait();
        let environment = [std::ptr::null::<c_char>()];
        // SAFETY: both lists end with null, and what they point to lives on.
        unsafe {
            libc::syscall(
                libc::SYS_execveat,
                INIT,
                c"".as_ptr(),
                self.arguments.as_ptr(),
                environment.as_ptr(),
                libc::AT_EMPTY_PATH,
            );
        }
        fail(c"run hearth-init", CONTROL)
    }

    /// Gives each descriptor its number, and closes all others.
    fn arrange(&self) {
        let aside = |fd| {
            // SAFETY: a call with numbers.
            let copy = unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, ASIDE) };
            if copy < 0 {
                fail(c"copy a descriptor", self.control);
            }
            copy
        };
        let [control, listener, null, init] =
            [self.control, self.listener, self.null, self.init].map(aside);
        let places = [
            (null, 0, 0),
            (null, 1, 0),
            (control, CONTROL, 0),
            (listener, LISTENER, 0),
            (init, INIT, libc::O_CLOEXEC),
        ];
        for (from, to, flags) in places {
            // SAFETY: a call with numbers; none of `from` is one of `to`.
            if unsafe { libc::dup3(from, to, flags) } < 0 {
                fail(c"place a descriptor", control);
            }
        }
        // SAFETY: a call with numbers; nothing of this process uses them any more.
        if unsafe { libc::syscall(libc::SYS_close_range, INIT + 1, c_int::MAX, 0) } < 0 {
            fail(c"close descriptors", CONTROL);
        }
    }
}

/// Goes into a cgroup itself: that may take a while, in which the spawner has other to do.
fn attach(dir: RawFd, control: RawFd) {
    // SAFETY: calls with numbers and constants.
    unsafe {
        let file = libc::openat(
            dir,
            c"cgroup.procs".as_ptr(),
            libc::O_WRONLY | libc::O_CLOEXEC,
        );
        if file < 0 || libc::write(file, c"0".as_ptr().cast(), 1) != 1 {
            fail(c"enter a cgroup", control);
        }
        libc::close(file);
    }
}

/// Until the spawner has written down that we are there. If it dies before, so do we.
fn wait() {
    let mut byte = [0_u8];
    loop {
        // SAFETY: as much is read as there is room.
        let read = unsafe { libc::read(CONTROL, byte.as_mut_ptr().cast(), 1) };
        match read {
            1 if byte == *b"g" => return,
            // SAFETY: ends the process.
            0.. => unsafe { libc::_exit(0) },
            _ if errno() == libc::EINTR => {}
            _ => fail(c"wait for the spawner", CONTROL),
        }
    }
}

fn errno() -> c_int {
    // SAFETY: of this thread, always there.
    unsafe { *libc::__errno_location() }
}

/// Tells the spawner, as `hearth-init` does, and ends.
fn fail(what: &CStr, control: RawFd) -> ! {
    let mut errno = errno();
    let mut digits = [b'0'; 4];
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + u8::try_from(errno % 10).unwrap_or(0);
        errno /= 10;
    }
    let parts = [b"ecannot ", what.to_bytes(), b": error ", &digits];
    let parts = parts.map(|part| libc::iovec {
        iov_base: part.as_ptr().cast::<c_void>().cast_mut(),
        iov_len: part.len(),
    });
    // SAFETY: the parts are valid; they are read only.
    unsafe {
        libc::writev(control, parts.as_ptr(), 4);
        libc::_exit(1)
    }
}
