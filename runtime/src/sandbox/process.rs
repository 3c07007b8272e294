//! Sandboxes made of processes, namespaces and cgroups, by way of the spawner.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use super::ask::{Ended, Listed};
use super::backend::{
    Abilities, Backend, Cancel, Hello, Outcome, Prepared, Sandbox, SandboxError, Started, Told,
    Work,
};
use super::message::{FromSandbox, ToSandbox};
use super::spawner::{Spawner, SpawnerError, Watch};
use super::start::Start;
use super::{Places, Resources};
use crate::channel::{Connection, Frame, Received};
use crate::id::{Epoch, FunctionName, RequestId, SandboxId};

/// How long the spawner may take; the end of a sandbox with much memory is what takes longest.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long `hearth-init` may take for what it does at once.
const PROMPT: Duration = Duration::from_secs(5);
/// How much later than `hearth-init` we know that a deadline has passed: it has to say so, on a
/// node that may have other things to do.
const GRACE: Duration = Duration::from_secs(2);
/// Frames that are taken in at once of one that is idle, and how long that may take: what else it
/// says is for the next time, so that one that never stops holds up nobody.
const HEARD: (u32, Duration) = (64, Duration::from_millis(5));
/// Connections to the spawner that are kept; more are made where more are needed at once.
const KEPT: usize = 8;

/// Process sandboxes of one spawner.
#[derive(Debug)]
pub struct Processes {
    places: Places,
    idle: Mutex<Vec<Spawner>>,
    owned: Mutex<Option<OwnedFd>>,
}

impl Processes {
    /// Of the spawner that listens there; it is looked for when it is needed.
    #[must_use]
    pub const fn new(places: Places) -> Self {
        Self {
            places,
            idle: Mutex::new(Vec::new()),
            owned: Mutex::new(None),
        }
    }

    /// From here on nobody else may own the sandboxes of this spawner, until this is dropped or the
    /// program ends. Who takes sandboxes that it does not know for leftovers must own them.
    pub fn own(&self) -> Result<(), SandboxError> {
        let Ok(mut owned) = self.owned.lock() else {
            return Ok(());
        };
        if owned.is_some() {
            return Ok(());
        }
        let path = self.places.owner();
        let failed = |error: Errno| SandboxError::Lock {
            path: path.display().to_string(),
            error: error.into(),
        };
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let mode = Mode::RUSR | Mode::WUSR;
        let file = rustix::fs::open(&path, flags, mode).map_err(failed)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => *owned = Some(file),
            Err(Errno::WOULDBLOCK) => {
                let path = path.display().to_string();
                return Err(SandboxError::Owned { path });
            }
            Err(error) => return Err(failed(error)),
        }
        Ok(())
    }

    /// Asks the spawner, by a connection that is kept for the next who asks.
    pub fn ask<T>(
        &self,
        mut ask: impl FnMut(&mut Spawner) -> Result<T, SpawnerError>,
    ) -> Result<T, SandboxError> {
        let kept = self.idle.lock().ok().and_then(|mut idle| idle.pop());
        let was_kept = kept.is_some();
        let connect = || Spawner::connect(&self.places, PATIENCE);
        let mut spawner = kept.map_or_else(connect, Ok)?;
        let answer = match ask(&mut spawner) {
            // It was of a spawner that is gone. What it may have claimed for us ends by itself,
            // as nobody starts anything in it.
            Err(SpawnerError::Closed { .. } | SpawnerError::Send { .. }) if was_kept => {
                spawner = connect()?;
                ask(&mut spawner)?
            }
            // A refusal is an answer; after another failure the connection is of no use.
            Err(error @ SpawnerError::Refused { .. }) => {
                self.keep(spawner);
                return Err(error.into());
            }
            answer => answer?,
        };
        self.keep(spawner);
        Ok(answer)
    }

    /// A connection on which the spawner tells of sandboxes that end by themselves.
    pub fn watched(&self) -> Result<Watch, SandboxError> {
        Ok(Spawner::connect(&self.places, PATIENCE)?.watch()?)
    }

    fn keep(&self, spawner: Spawner) {
        if let Ok(mut idle) = self.idle.lock()
            && idle.len() < KEPT
        {
            idle.push(spawner);
        }
    }
}

impl Backend for Processes {
    fn abilities(&self) -> Abilities {
        Abilities::default()
    }

    fn prepare(
        &self,
        function: &FunctionName,
        resources: Resources,
    ) -> Result<Prepared, SandboxError> {
        let claimed = self.ask(|spawner| spawner.claim(function.clone(), resources))?;
        match ProcessSandbox::connect(&self.places, claimed.sandbox, claimed.epoch) {
            Ok((sandbox, _)) => Ok(Prepared {
                sandbox: Box::new(sandbox),
                claimed,
            }),
            Err(error) => {
                // Nobody else knows of it.
                let _ = self.end(claimed.sandbox);
                Err(error)
            }
        }
    }

    fn find(&self, listed: &Listed) -> Result<(Box<dyn Sandbox>, Hello), SandboxError> {
        let found = ProcessSandbox::connect(&self.places, listed.sandbox, listed.epoch);
        found.map(|(sandbox, hello)| (Box::new(sandbox) as Box<dyn Sandbox>, hello))
    }

    fn end(&self, sandbox: SandboxId) -> Result<Ended, SandboxError> {
        self.ask(|spawner| spawner.end(sandbox))
    }
}

/// One process sandbox.
#[derive(Debug)]
pub struct ProcessSandbox {
    id: SandboxId,
    epoch: Epoch,
    channel: Connection<ToSandbox, FromSandbox>,
}

impl ProcessSandbox {
    fn connect(
        places: &Places,
        id: SandboxId,
        epoch: Epoch,
    ) -> Result<(Self, Hello), SandboxError> {
        let path = places.sandbox(id);
        let channel = UnixStream::connect(&path)
            .and_then(Connection::new)
            .map_err(|error| SandboxError::Connect {
                sandbox: id,
                path: path.display().to_string(),
                error,
            })?;
        let mut sandbox = Self { id, epoch, channel };
        let deadline = Instant::now() + PROMPT;
        let hello = sandbox.next(deadline, &mut None)?.message;
        match hello {
            FromSandbox::Hello { state, function } => Ok((sandbox, Hello { state, function })),
            other => Err(out_of_turn(&other)),
        }
    }

    fn frame(&self, message: ToSandbox) -> Frame<ToSandbox> {
        Frame::new(self.epoch, message)
    }

    /// The next frame of this life. `cancel` is watched where it is given; when it is said, the
    /// sandbox is told, and still says what became of its request.
    fn next(
        &mut self,
        deadline: Instant,
        cancel: &mut Option<(&Cancel, RequestId)>,
    ) -> Result<Frame<FromSandbox>, SandboxError> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let wake = cancel.as_ref().map(|(cancel, _)| cancel.as_fd());
            match self.receive(left, wake)? {
                Received::Frame(frame) if frame.epoch == self.epoch => return Ok(*frame),
                Received::Frame(_) => {}
                Received::Closed => return Err(SandboxError::Gone),
                Received::Woken => {
                    if let Some((_, request)) = cancel.take() {
                        let mut frame = self.frame(ToSandbox::Cancel);
                        frame.request = Some(request);
                        self.channel.send(&frame, PROMPT)?;
                    }
                }
            }
        }
    }

    fn receive(
        &mut self,
        patience: Duration,
        wake: Option<BorrowedFd<'_>>,
    ) -> Result<Received<FromSandbox>, SandboxError> {
        use crate::channel::ReceiveError;
        match self.channel.receive_unless(patience, wake) {
            Ok(received) => Ok(received),
            Err(ReceiveError::Deadline(_)) => Err(SandboxError::Silent(patience)),
            Err(error) => Err(SandboxError::Receive(error)),
        }
    }

    /// Says that the outcome has arrived. Where it cannot be said the sandbox keeps it for a
    /// while, which harms nobody.
    fn taken(&mut self, request: RequestId) {
        let mut frame = self.frame(ToSandbox::Taken);
        frame.request = Some(request);
        let _ = self.channel.send(&frame, PROMPT);
    }
}

impl AsFd for ProcessSandbox {
    /// Readable when the sandbox says something, or has ended.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }
}

impl Sandbox for ProcessSandbox {
    fn id(&self) -> SandboxId {
        self.id
    }

    fn epoch(&self) -> Epoch {
        self.epoch
    }

    fn start(
        &mut self,
        start: &Start,
        patience: Duration,
        tell: &mut dyn FnMut(Told<'_>),
    ) -> Result<Started, SandboxError> {
        let mut frame = self.frame(ToSandbox::Start(Box::new(start.clone())));
        frame.left = Some(patience);
        self.channel.send(&frame, PROMPT)?;
        let deadline = Instant::now() + patience + GRACE;
        let mut started = Started::default();
        loop {
            let frame = self.next(deadline, &mut None)?;
            match frame.message {
                FromSandbox::Spawned { steps } => started.steps = steps,
                FromSandbox::Ready { boottime_ns } => {
                    started.ready_boottime_ns = boottime_ns;
                    return Ok(started);
                }
                FromSandbox::NotStarted { why } => {
                    let said = frame.body;
                    return Err(SandboxError::NotStarted { why, said });
                }
                FromSandbox::Exited { .. } => return Err(SandboxError::Gone),
                other => between(&other, &frame.body, tell)?,
            }
        }
    }

    fn invoke(
        &mut self,
        work: Work<'_>,
        cancel: &Cancel,
        tell: &mut dyn FnMut(Told<'_>),
    ) -> Result<Outcome, SandboxError> {
        let mut frame = self.frame(ToSandbox::Invoke(work.ask));
        frame.request = Some(work.request);
        frame.left = Some(work.left);
        frame.body = work.payload.to_vec();
        self.channel.send(&frame, PROMPT)?;
        self.outcome(work.request, work.left, cancel, tell)
    }

    fn outcome(
        &mut self,
        request: RequestId,
        left: Duration,
        cancel: &Cancel,
        tell: &mut dyn FnMut(Told<'_>),
    ) -> Result<Outcome, SandboxError> {
        let deadline = Instant::now() + left + GRACE;
        let mut cancel = Some((cancel, request));
        loop {
            let frame = self.next(deadline, &mut cancel)?;
            let is_ours = frame.request == Some(request);
            match frame.message {
                FromSandbox::Answered if is_ours => {
                    self.taken(request);
                    return Ok(Outcome::Answered(frame.body));
                }
                FromSandbox::Failed { kind } if is_ours => {
                    self.taken(request);
                    let body = frame.body;
                    return Ok(Outcome::Failed { kind, body });
                }
                // Of one before, whose end nobody waited for.
                FromSandbox::Answered | FromSandbox::Failed { .. } => {
                    if let Some(other) = frame.request {
                        self.taken(other);
                    }
                }
                FromSandbox::Exited { .. } => return Err(SandboxError::Gone),
                other => between(&other, &frame.body, tell)?,
            }
        }
    }

    fn listen(&mut self, tell: &mut dyn FnMut(Told<'_>)) -> Result<(), SandboxError> {
        let end = Instant::now() + HEARD.1;
        for _ in 0..HEARD.0 {
            if Instant::now() >= end {
                break;
            }
            // The least that a socket takes for a time.
            let frame = match self.next(Instant::now() + Duration::from_millis(1), &mut None) {
                Ok(frame) => frame,
                Err(SandboxError::Silent(_)) => return Ok(()),
                Err(error) => return Err(error),
            };
            match frame.message {
                FromSandbox::Exited { .. } => return Err(SandboxError::Gone),
                // Of a request whose end nobody waited for.
                FromSandbox::Answered | FromSandbox::Failed { .. } => {
                    if let Some(other) = frame.request {
                        self.taken(other);
                    }
                }
                other => between(&other, &frame.body, tell)?,
            }
        }
        Ok(())
    }
}

/// What may come at any time.
fn between(
    message: &FromSandbox,
    body: &[u8],
    tell: &mut dyn FnMut(Told<'_>),
) -> Result<(), SandboxError> {
    match message {
        FromSandbox::Log { stream, dropped } => tell(Told::Log {
            stream: *stream,
            bytes: body,
            dropped: *dropped,
        }),
        FromSandbox::Refused { calls } => tell(Told::Refused(calls)),
        other => return Err(out_of_turn(other)),
    }
    Ok(())
}

fn out_of_turn(message: &FromSandbox) -> SandboxError {
    SandboxError::OutOfTurn(format!("{message:?}").chars().take(200).collect())
}
