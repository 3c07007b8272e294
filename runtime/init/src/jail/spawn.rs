//! The function's first process, as seen by `hearth-init`.

use std::fs::File;
use std::io::{self, IoSliceMut, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;

use hearth_runtime::sandbox::message::{Exit, NotStarted};
use hearth_runtime::sandbox::start::Start;
use hearth_runtime::seccomp;
use rustix::fs::{Mode, fchmod};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::process::{Pid, WaitOptions, waitpid};

use super::Jail;
use super::child::{self, REPORT, Step};
use super::fault::{At as _, Fault};
use super::plan::Plan;

/// What runs a function's code.
pub(crate) struct Function {
    /// Its first process, as seen from inside.
    pub(crate) pid: Pid,
    /// Who makes a system call that is not allowed waits until this is answered.
    pub(crate) refusals: seccomp::Listener,
    /// What was made, and how many microseconds after [`Prepared::enter`](super::Prepared::enter)
    /// began.
    pub(crate) steps: Vec<(&'static str, u64)>,
}

impl Jail {
    /// Runs the function's program, and returns when it does, or cannot.
    ///
    /// `out` and `err` should be made after [`enter`](super::Prepared::enter): who made a pipe owns
    /// it, and the function can open `/dev/stdout` only if it may be opened by others.
    pub(crate) fn spawn(
        &self,
        start: &Start,
        environment: &[(String, String)],
        out: OwnedFd,
        err: OwnedFd,
    ) -> Result<Function, NotStarted> {
        let mut steps = self.steps.clone();
        for output in [&out, &err] {
            // Not all that may be an output has a mode, or is this process's.
            let _ = fchmod(output, Mode::from_raw_mode(0o622));
        }
        let plan = Plan::new(&self.users, &self.filter, start, environment, (out, err))?;
        let spawned = self.fork(&plan).map_err(|fault| NotStarted::Sandbox {
            step: fault.step.to_owned(),
            error: fault.error.to_string(),
        })?;
        steps.done("fork");
        let refusals = spawned.running(start)?;
        steps.done("exec");
        Ok(Function {
            pid: spawned.pid,
            refusals,
            steps: steps.told(),
        })
    }

    fn fork(&self, plan: &Plan<'_>) -> Result<Spawned, Fault> {
        let (listener, send) = UnixStream::pair().at("making a pair of sockets")?;
        let (report, tell) = io::pipe().at("making a pipe")?;
        self.oom_score.function()?;
        // SAFETY: the child makes system calls only, until it is another program or ends.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            child::run(plan, send.as_fd(), tell.as_fd());
        }
        // What the kernel says of it, before anything else is asked of it; -1 is no process.
        let forked = match pid {
            ..0 => Err(io::Error::last_os_error()),
            pid => Pid::from_raw(pid).ok_or_else(|| io::ErrorKind::NotFound.into()),
        };
        self.oom_score.init()?;
        let pid = forked.at("forking")?;
        self.users.spawned().at("giving up capabilities")?;
        Ok(Spawned {
            pid,
            listener,
            report,
        })
    }
}

/// A process that is about to run the function.
struct Spawned {
    pid: Pid,
    listener: UnixStream,
    report: io::PipeReader,
}

impl Spawned {
    /// Waits until it does.
    fn running(&self, start: &Start) -> Result<seccomp::Listener, NotStarted> {
        let sandbox = |step: &str, error: io::Error| NotStarted::Sandbox {
            step: step.to_owned(),
            error: error.to_string(),
        };
        let mut report = [0; REPORT];
        match (&self.report).read_exact(&mut report) {
            Ok(()) => {
                let _ = waitpid(Some(self.pid), WaitOptions::empty());
                let [step, errno @ ..] = report;
                let error = io::Error::from_raw_os_error(i32::from_ne_bytes(errno));
                let step = Step::ALL.into_iter().find(|known| *known as u8 == step);
                Err(told(step.unwrap_or(Step::Exec), &error, start))
            }
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                // It was sent before the program ran: where it is not there, nothing ran.
                receive(&self.listener).map_err(|_| {
                    let status = waitpid(Some(self.pid), WaitOptions::empty());
                    let how = status.ok().flatten().map_or(Exit::Unknown, |(_, status)| {
                        let signal = status.terminating_signal().map(Exit::Signal);
                        signal
                            .or(status.exit_status().map(Exit::Code))
                            .unwrap_or(Exit::Unknown)
                    });
                    NotStarted::Exited { how }
                })
            }
            Err(error) => Err(sandbox("waiting for its program", error)),
        }
    }
}

fn told(step: Step, error: &io::Error, start: &Start) -> NotStarted {
    let command = start.program.command.first().cloned().unwrap_or_default();
    let directory = start.program.directory.display();
    let error = match (step, error.raw_os_error()) {
        (Step::Interpreter, _) => {
            "it is there, but what is to run it (the program on its `#!` line, or its dynamic \
             loader) is not in any layer"
                .to_owned()
        }
        (Step::Exec, Some(libc::ENOEXEC)) => {
            format!("{error}: neither a program for this processor nor a script with `#!`")
        }
        (Step::Exec, Some(libc::ENOENT)) if !command.contains('/') => {
            format!("{error}: no directory of PATH has it")
        }
        (Step::Exec, _) => error.to_string(),
        (Step::Directory, _) => {
            return NotStarted::Sandbox {
                step: format!("changing to its directory {directory}"),
                error: format!("{error}; its `directory` names one that its layers have"),
            };
        }
        _ => {
            return NotStarted::Sandbox {
                step: step.text().to_owned(),
                error: error.to_string(),
            };
        }
    };
    NotStarted::Program { command, error }
}

/// It was sent before the program ran.
fn receive(socket: &UnixStream) -> io::Result<seccomp::Listener> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    recvmsg(
        socket,
        &mut [IoSliceMut::new(&mut [0])],
        &mut control,
        flags,
    )?;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(mut descriptors) = message
            && let Some(listener) = descriptors.next()
        {
            return Ok(listener.into());
        }
    }
    // Killed before it was under the filter.
    Err(io::Error::other(
        "its process ended before it ran the program",
    ))
}

/// Who is killed first where memory is short: the function, not who is to tell of it.
pub(super) struct OomScore {
    file: File,
    init: i32,
}

impl OomScore {
    pub(super) fn open() -> Result<Self, Fault> {
        const STEP: &str = "reading its OOM score";
        let path = "/proc/self/oom_score_adj";
        let told = std::fs::read_to_string(path).at(STEP)?;
        let init: i32 = told.trim().parse().map_err(io::Error::other).at(STEP)?;
        let file = File::options().write(true).open(path).at(STEP)?;
        let score = Self {
            file,
            init: init.max(0),
        };
        // What a service manager has given to the spawner, a function could give itself again:
        // until who may do so (CAP_SYS_RESOURCE) raises it.
        score.init()?;
        Ok(score)
    }

    /// Of the processes that this one starts from here on.
    fn function(&self) -> Result<(), Fault> {
        self.set(self.init.saturating_add(100).min(1000))
    }

    /// Of this one; it may go back to what it had.
    fn init(&self) -> Result<(), Fault> {
        self.set(self.init)
    }

    fn set(&self, score: i32) -> Result<(), Fault> {
        (&self.file)
            .write_all(score.to_string().as_bytes())
            .at("setting the OOM score")
    }
}
