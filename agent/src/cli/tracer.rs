//! Runs a command under the probes and observes its start: the kernel part of `hearth trace`.

use std::{
    collections::BTreeSet,
    ffi::{OsStr, OsString},
    io,
    os::fd::{AsFd, OwnedFd},
    process::{Command, ExitStatus, Stdio},
    time::Duration,
};

use hearth_abi::Opener;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use thiserror::Error;

use super::interruption::Interruption;
use crate::{
    config::Config,
    export::TraceContext,
    kernel::{
        attach::Reach,
        cgroup_lock::LockLimits,
        drain::Events,
        enrolment::{Enrolment, find_executable},
        event::Event,
        image::{ImageError, Root},
        oom::OomLimits,
        probes::{Probes, ProbesError, Request},
        table,
        uprobes::EnrolError,
    },
    observe::{
        cold_start::{ColdStart, Mode, ReadyRule, Settings, Tracker, fold::About},
        identity::{CgroupNames, MemoryHierarchy, boot_id},
    },
    time::{Boottime, Nanos},
};

/// How often the tracker is asked for ends.
const TICK: Duration = Duration::from_millis(5);

/// How long a program that is told to end may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// What is traced, and how.
#[derive(Clone, Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is one switch of the command line"
)]
pub struct Traced {
    /// Program and arguments.
    pub command: Vec<OsString>,
    /// When it is ready.
    pub ready: ReadyRule,
    /// When it is given up.
    pub deadline: Nanos,
    /// Whether to let it run on after ready, rather than ending it.
    pub keep: bool,
    /// Whether to drop the page cache before each start.
    pub cold: bool,
    /// Whether standard output is ours: the program's goes to standard error then.
    pub own_stdout: bool,
    /// Whether the program is told of the start's trace by `TRACEPARENT`. Only of one that is
    /// sent to a collector: its own spans would hang from nothing else.
    pub joins: bool,
}

/// The command cannot be traced.
#[derive(Debug, Error)]
pub enum TraceError {
    /// No such program.
    #[error("{}: no such program in PATH, or not executable", .0.display())]
    NoProgram(OsString),
    /// The probes cannot be had.
    #[error(transparent)]
    Probes(#[from] ProbesError),
    /// The ready rule's uprobe cannot be had.
    #[error(transparent)]
    Enrol(#[from] EnrolError),
    /// The root directory cannot be opened.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The program cannot be started.
    #[error("{}: {source}", program.display())]
    Spawn {
        /// Program.
        program: OsString,
        /// Why.
        source: io::Error,
    },
    /// The program cannot be waited for.
    #[error("waiting for the program: {0}")]
    Wait(io::Error),
    /// The page cache cannot be dropped.
    #[error("--cold: /proc/sys/vm/drop_caches: {0}; run as root, outside of a container")]
    DropCaches(io::Error),
    /// Somebody wants it to end.
    #[error("interrupted before the program was ready; it and what it started were ended")]
    Interrupted,
    /// The start did not show.
    #[error(
        "the program ran, and its start was not seen ({lost} records lost); `hearth doctor` may tell why"
    )]
    NotSeen {
        /// Records lost meanwhile.
        lost: u64,
    },
}

/// Traces one command, again and again.
#[derive(Debug)]
pub struct Tracer {
    traced: Traced,
    probes: Probes,
    events: Events,
    tracker: Tracker,
    notes: Vec<String>,
    enrolment: Enrolment,
    lost: u64,
}

/// One start, and what the program came to.
#[derive(Debug)]
pub struct Outcome {
    /// The observation.
    pub start: ColdStart,
    /// How the program ended; `None` if hearth ended it after ready.
    pub status: Option<ExitStatus>,
    /// The trace that the program was told of, so that its own spans join.
    pub context: TraceContext,
}

impl Tracer {
    /// Attaches the probes, to the command's own files too.
    pub fn new(traced: Traced) -> Result<Self, TraceError> {
        let program = traced
            .command
            .first()
            .map_or(OsStr::new(""), OsString::as_os_str);
        let executable = program
            .to_str()
            .and_then(find_executable)
            .ok_or_else(|| TraceError::NoProgram(program.to_owned()))?;
        let ready = &traced.ready;
        let request = Request {
            signals: BTreeSet::from([table::Signal::ColdStart, table::Signal::CgroupLock]),
            reach: Reach::Trace,
            every_exec: false,
            cgroup_opens: false,
            rules: Vec::new(),
            ready: ready.kernel_bits(),
            ready_kinds: ready.hooks(),
            ready_file: ready
                .file()
                .and_then(|path| path.to_str())
                .map(str::to_owned),
            locks: LockLimits::default(),
            without: Vec::new(),
            oom: OomLimits::default(),
        };
        let (mut probes, events) = Probes::start(&request)?;
        if let Some((file, symbol)) = ready.uprobe() {
            probes.enrol_ready(file, symbol)?;
        }
        let mut enrolment = Enrolment::default();
        let notes = enrolment.ahead(&mut probes, &Root::host()?, &executable);
        probes.watch_source(std::process::id(), Opener::Trace, ready.kernel_bits())?;

        let mut settings = Settings::new(Mode::Trace {
            source: std::process::id(),
        });
        settings.about = About {
            boot_id: boot_id(),
            strategies: probes.strategies(),
            watching: None,
        };
        settings.ready = traced.ready.clone();
        settings.rules = Config::default()
            .runtimes
            .iter()
            .filter_map(|runtime| runtime.rule().ok())
            .collect();
        settings.deadline = traced.deadline;
        let cgroups = MemoryHierarchy::find()
            .map(CgroupNames::of)
            .unwrap_or_default();
        let tracker = Tracker::new(settings, cgroups);
        Ok(Self {
            traced,
            probes,
            events,
            tracker,
            notes,
            enrolment,
            lost: 0,
        })
    }

    /// Why a boundary of the command has no probe.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Runs the command once.
    pub async fn start(&mut self) -> Result<Outcome, TraceError> {
        if self.traced.cold {
            drop_page_cache().map_err(TraceError::DropCaches)?;
        }
        let context = TraceContext::random();
        let mut child = self
            .command(context)
            .spawn()
            .map_err(|source| TraceError::Spawn {
                program: self.traced.command[0].clone(),
                source,
            })?;
        // The child is not reaped before it is waited for: its id cannot be another's.
        let mut group = vec![pidfd_of(child.id()).map_err(TraceError::Wait)?];
        let mut interrupted = Interruption::new().map_err(TraceError::Wait)?;
        let seen = tokio::select! {
            seen = self.observe(&mut child, &mut group) => seen,
            () = interrupted.arrived() => Err(TraceError::Interrupted),
        };
        if matches!(seen, Err(TraceError::Interrupted)) {
            let watched = self.probes.watched();
            group.extend(watched.iter().filter_map(|&tgid| self.handle_of(tgid)));
        }
        let status = match &seen {
            Ok(_) if self.traced.keep => tokio::select! {
                status = wait(&mut child) => status.map(Some),
                () = interrupted.arrived() => end(&mut child, &group).await,
            },
            Ok(_) | Err(TraceError::Interrupted) => end(&mut child, &group).await,
            _ => wait(&mut child).await.map(Some),
        }
        .map_err(TraceError::Wait)?;
        let start = seen?;
        Ok(Outcome {
            start,
            status,
            context,
        })
    }

    fn command(&self, context: TraceContext) -> Command {
        let mut command = Command::new(&self.traced.command[0]);
        command.args(&self.traced.command[1..]);
        if self.traced.joins {
            command.env("TRACEPARENT", context.traceparent());
        }
        if self.traced.own_stdout {
            // What a machine reads on our standard output is ours alone.
            match io::stderr().as_fd().try_clone_to_owned() {
                Ok(stderr) => command.stdout(Stdio::from(stderr)),
                Err(_) => command.stdout(Stdio::null()),
            };
        }
        command
    }

    /// Takes in events until the start has ended; adds its processes that are left to `group`.
    async fn observe(
        &mut self,
        child: &mut std::process::Child,
        group: &mut Vec<OwnedFd>,
    ) -> Result<ColdStart, TraceError> {
        let mut batch: Vec<Event> = Vec::new();
        let mut ticks = tokio::time::interval(TICK);
        let mut gone_since: Option<Boottime> = None;
        loop {
            tokio::select! {
                () = self.events.next_batch(&mut batch) => {
                    for event in batch.drain(..) {
                        self.enrolment.note(&mut self.probes, &event);
                        self.tracker.accept(&event);
                    }
                }
                _ = ticks.tick() => {
                    let lost = self.probes.lost()?;
                    self.tracker.note_lost(lost - self.lost);
                    self.lost = lost;
                    let now = Boottime::now();
                    let finished = self.tracker.advance(now);
                    let left: Vec<u32> =
                        finished.iter().flat_map(|done| done.watched.clone()).collect();
                    group.extend(left.iter().filter_map(|&tgid| self.handle_of(tgid)));
                    self.unwatch(left);
                    if let Some(done) = finished.into_iter().next() {
                        return Ok(done.start);
                    }
                    if gone_since.is_none() && child.try_wait().map_err(TraceError::Wait)?.is_some() {
                        gone_since = Some(now);
                    }
                    // Its last mark takes a tick of the drain and the tracker's grace.
                    let late = Nanos(2_000_000_000);
                    // Where nothing of it is left and the start is still open, its end was lost.
                    if gone_since.is_some_and(|since| now.since(since) > late)
                        && (self.tracker.stats().open == 0 || self.probes.watched().is_empty())
                    {
                        return Err(TraceError::NotSeen { lost: self.lost });
                    }
                }
            }
        }
    }

    /// A handle on a watched process. The kernel side forgets a process when it exits, so that
    /// an id which is still watched after the handle was made has not been given to another.
    fn handle_of(&self, tgid: u32) -> Option<OwnedFd> {
        let pidfd = pidfd_of(tgid).ok()?;
        self.probes.is_watched(tgid).then_some(pidfd)
    }

    fn unwatch(&mut self, mut tgids: Vec<u32>) {
        tgids.extend(self.tracker.take_unwatched());
        self.probes.unwatch(&tgids);
    }
}

fn pidfd_of(pid: u32) -> io::Result<OwnedFd> {
    let pid = i32::try_from(pid)
        .ok()
        .and_then(Pid::from_raw)
        .ok_or(io::ErrorKind::InvalidInput)?;
    Ok(pidfd_open(pid, PidfdFlags::empty())?)
}

/// Ends a program that is ready, and what it started: asks, and after a while insists. The
/// status of one that had ended by itself.
async fn end(child: &mut std::process::Child, group: &[OwnedFd]) -> io::Result<Option<ExitStatus>> {
    let status = child.try_wait()?;
    for signal in [Signal::TERM, Signal::KILL] {
        for process in group {
            // Through the pidfd: a pid may have been given to another by now.
            let _ = pidfd_send_signal(process, signal);
        }
        let ended = async {
            wait(child).await?;
            while group.iter().any(is_alive) {
                tokio::time::sleep(TICK).await;
            }
            io::Result::Ok(())
        };
        if tokio::time::timeout(PATIENCE, ended).await.is_ok() {
            break;
        }
    }
    Ok(status)
}

/// A pidfd becomes readable when its process has ended.
fn is_alive(process: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(process, PollFlags::IN)];
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    !matches!(poll(&mut fds, Some(&now)), Ok(ready) if ready > 0)
}

async fn wait(child: &mut std::process::Child) -> io::Result<ExitStatus> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        tokio::time::sleep(TICK).await;
    }
}

fn drop_page_cache() -> io::Result<()> {
    rustix::fs::sync();
    std::fs::write("/proc/sys/vm/drop_caches", "3")
}
