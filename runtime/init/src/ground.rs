//! The jail as what the service starts functions in, and whose processes it reaps and kills.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd as _, OwnedFd};

use hearth_runtime::id::SandboxId;
use hearth_runtime::sandbox::message::{Exit, NotStarted};
use hearth_runtime::sandbox::start::Start;
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus};

use crate::jail::Prepared;
use crate::service::{Ground, Launched};

/// The jail of this pid namespace, of which this is the first process.
pub(crate) struct Jailed {
    prepared: Option<Prepared>,
    hostname: String,
    /// Readable when a child has ended; every process whose parent is gone is one.
    children: OwnedFd,
    function: Option<Pid>,
}

impl Jailed {
    pub(crate) fn new(prepared: Prepared, sandbox: SandboxId) -> io::Result<Self> {
        Ok(Self {
            prepared: Some(prepared),
            hostname: sandbox.to_string(),
            children: ends_of_children()?,
            function: None,
        })
    }
}

impl Ground for Jailed {
    fn launch(
        &mut self,
        start: &Start,
        environment: &[(String, String)],
        outputs: impl FnOnce() -> io::Result<(OwnedFd, OwnedFd)>,
    ) -> Result<Launched, NotStarted> {
        let unmade = |step: &str, error: io::Error| NotStarted::Sandbox {
            step: step.to_owned(),
            error: error.to_string(),
        };
        let twice = || unmade("making the jail", io::Error::other("there is one already"));
        let prepared = self.prepared.take().ok_or_else(twice)?;
        let jail = prepared
            .enter(start, &self.hostname)
            .map_err(|fault| unmade(fault.step, fault.error))?;
        let outputs = outputs().map_err(|error| unmade("making pipes for its output", error));
        let (out, err) = outputs?;
        let function = jail.spawn(start, environment, out, err)?;
        self.function = Some(function.pid);
        Ok(Launched {
            steps: function.steps,
            refusals: Some(function.refusals),
        })
    }

    fn ended(&self) -> Option<BorrowedFd<'_>> {
        Some(self.children.as_fd())
    }

    fn reap(&mut self) -> Option<Exit> {
        // It says that there is one at least; who that is, the next call tells.
        let mut told = [0; size_of::<libc::signalfd_siginfo>()];
        let _ = rustix::io::read(&self.children, &mut told);
        let mut how = None;
        while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            if self.function == Some(pid) {
                how = Some(exit(status));
            }
        }
        how
    }

    fn kill(&mut self) {
        // Everybody in this pid namespace but ourselves; where nobody is left, it fails.
        // SAFETY: a plain system call without pointers.
        let _ = unsafe { libc::kill(-1, Signal::KILL.as_raw()) };
    }
}

fn exit(status: WaitStatus) -> Exit {
    let code = status.exit_status().map(Exit::Code);
    let signal = status.terminating_signal().map(Exit::Signal);
    code.or(signal).unwrap_or(Exit::Unknown)
}

/// A descriptor in place of the signal.
fn ends_of_children() -> io::Result<OwnedFd> {
    // SAFETY: all bits zero is a set, which the first call makes an empty one; the calls read and
    // write this set only.
    let descriptor = unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGCHLD);
        if libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) != 0 {
            return Err(io::Error::last_os_error());
        }
        libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK)
    };
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call returned a new descriptor, which nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}
