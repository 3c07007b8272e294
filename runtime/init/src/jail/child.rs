//! The function's first process, from fork to exec. It makes system calls and allocates nothing.

use std::ffi::CStr;
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use hearth_runtime::sandbox::start::HugePages;
use rustix::fs::{Access, CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use super::plan::Plan;

/// What was being done when it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Step {
    Descriptors,
    Signals,
    Session,
    Limits,
    HugePages,
    User,
    Directory,
    Filter,
    Exec,
    /// The program is there; what it is to be run by is not.
    Interpreter,
}

impl Step {
    pub(super) const ALL: [Self; 10] = [
        Self::Descriptors,
        Self::Signals,
        Self::Session,
        Self::Limits,
        Self::HugePages,
        Self::User,
        Self::Directory,
        Self::Filter,
        Self::Exec,
        Self::Interpreter,
    ];

    pub(super) fn text(self) -> &'static str {
        match self {
            Self::Descriptors => "giving it its descriptors",
            Self::Signals => "resetting its signals",
            Self::Session => "making a session",
            Self::Limits => "limiting its resources",
            Self::HugePages => "keeping it from huge pages",
            Self::User => "becoming the function's user",
            Self::Directory => "changing to its directory",
            Self::Filter => "limiting its system calls",
            Self::Exec | Self::Interpreter => "running its program",
        }
    }
}

/// One byte for the step, four for the error.
pub(super) const REPORT: usize = 5;

/// Becomes the function. Tells over `report` if it cannot; the end of the program's exec closes it.
/// The listener of its system calls goes over `listener`.
pub(super) fn run(plan: &Plan<'_>, listener: BorrowedFd<'_>, report: BorrowedFd<'_>) -> ! {
    let Err((step, error)) = become_function(plan, listener);
    let mut bytes = [step as u8, 0, 0, 0, 0];
    bytes[1..].copy_from_slice(&error.raw_os_error().to_ne_bytes());
    let _ = rustix::io::write(report, &bytes);
    // SAFETY: ends this process without what its parent wants done at its own end.
    unsafe { libc::_exit(127) }
}

type Failed = (Step, Errno);

fn become_function(
    plan: &Plan<'_>,
    socket: BorrowedFd<'_>,
) -> Result<std::convert::Infallible, Failed> {
    let at = |step| move |error| (step, error);
    descriptors(plan).map_err(at(Step::Descriptors))?;
    signals().map_err(at(Step::Signals))?;
    rustix::process::setsid().map_err(at(Step::Session))?;
    rustix::process::umask(Mode::from_raw_mode(0o022));
    for (resource, limit) in &plan.limits {
        rustix::process::setrlimit(*resource, *limit).map_err(at(Step::Limits))?;
    }
    match plan.huge_pages {
        HugePages::Node => {}
        HugePages::Never => {
            rustix::thread::disable_transparent_huge_pages(true).map_err(at(Step::HugePages))?;
        }
    }
    plan.users.become_function().map_err(at(Step::User))?;
    rustix::process::chdir(&*plan.directory).map_err(at(Step::Directory))?;
    // From here on only what every function may call.
    let filter = plan.filter.install();
    let filter = filter.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO));
    let listener = filter.map_err(at(Step::Filter))?;
    send(socket, &OwnedFd::from(listener)).map_err(at(Step::Filter))?;
    Err(exec(plan))
}

/// Standard input says that there is none, the other two are the sandbox's; all others close when
/// the program runs.
fn descriptors(plan: &Plan<'_>) -> rustix::io::Result<()> {
    let null = rustix::fs::open(
        c"/dev/null",
        OFlags::RDONLY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&plan.out)?;
    rustix::stdio::dup2_stderr(&plan.err)?;
    // SAFETY: closes no descriptor that this process still uses.
    let marked = unsafe { libc::close_range(3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC.cast_signed()) };
    if marked < 0 { Err(last()) } else { Ok(()) }
}

/// As every program may expect them: what was ignored or held back by whoever started this stays
/// so over an exec.
fn signals() -> rustix::io::Result<()> {
    // The kernel's own struct sigaction: no handler, no flags, nothing held back. The C library
    // keeps two signals to itself, and would not reset these.
    let default = [0_u64; 4];
    for signal in 1..=64 {
        // SAFETY: the kernel reads 32 bytes. Some signals have no action to set, which is no fault.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                default.as_ptr(),
                std::ptr::null::<u64>(),
                8,
            )
        };
    }
    // SAFETY: `none` is an empty set of signals when it is read.
    let done = unsafe {
        let mut none = MaybeUninit::uninit();
        libc::sigemptyset(none.as_mut_ptr());
        libc::sigprocmask(libc::SIG_SETMASK, none.as_ptr(), std::ptr::null_mut())
    };
    if done < 0 { Err(last()) } else { Ok(()) }
}

fn send(socket: BorrowedFd<'_>, listener: &OwnedFd) -> rustix::io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut message = SendAncillaryBuffer::new(&mut space);
    let listener = [listener.as_fd()];
    message.push(SendAncillaryMessage::ScmRights(&listener));
    sendmsg(
        socket,
        &[IoSlice::new(b"l")],
        &mut message,
        SendFlags::NOSIGNAL,
    )?;
    Ok(())
}

/// Only returns where no candidate can be run. One that is there but may not be run counts more
/// than those that are not there.
fn exec(plan: &Plan<'_>) -> Failed {
    let mut failed = (Step::Exec, Errno::NOENT);
    for file in &plan.candidates {
        // SAFETY: all three end as the kernel expects, and live until the program replaces them.
        unsafe {
            libc::execve(
                file.as_ptr(),
                plan.arguments.as_ptr(),
                plan.environment.as_ptr(),
            )
        };
        match last() {
            Errno::NOENT if is_there(file) => return (Step::Interpreter, Errno::NOENT),
            Errno::NOENT | Errno::NOTDIR => {}
            Errno::ACCESS => failed = (Step::Exec, Errno::ACCESS),
            error => return (Step::Exec, error),
        }
    }
    failed
}

fn is_there(file: &CStr) -> bool {
    rustix::fs::accessat(CWD, file, Access::EXISTS, rustix::fs::AtFlags::empty()).is_ok()
}

fn last() -> Errno {
    // SAFETY: the C library's own place for it, of this thread.
    Errno::from_raw_os_error(unsafe { *libc::__errno_location() })
}
