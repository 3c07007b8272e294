//! What every kind of sandbox does, whatever it is made of.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{EventfdFlags, eventfd};

use super::Resources;
use super::ask::{Claimed, Ended, Listed};
use super::message::{Ask, NotStarted, State, Stream};
use super::spawner::SpawnerError;
use super::start::Start;
use crate::channel::{ReceiveError, SendError};
use crate::id::{Epoch, FunctionName, RequestId, SandboxId};

/// Makes sandboxes of one kind, and takes them away.
pub trait Backend: Send + Sync {
    /// What it can do beside starting.
    fn abilities(&self) -> Abilities;

    /// A slot with these limits and nothing started in it.
    fn prepare(
        &self,
        function: &FunctionName,
        resources: Resources,
    ) -> Result<Prepared, SandboxError>;

    /// One that somebody prepared before, and where it is.
    fn find(&self, listed: &Listed) -> Result<(Box<dyn Sandbox>, Hello), SandboxError>;

    /// Ends one; when this returns there is no process, cgroup or socket of it.
    fn end(&self, sandbox: SandboxId) -> Result<Ended, SandboxError>;
}

/// A sandbox in which nothing was started.
pub struct Prepared {
    /// It.
    pub sandbox: Box<dyn Sandbox>,
    /// Where it is, and within which limits.
    pub claimed: Claimed,
}

/// What a sandbox says first to who finds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Where it is.
    pub state: State,
    /// What it was started as: the function and its version.
    pub function: Option<(FunctionName, u32)>,
}

/// What a kind of sandbox can do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Abilities {
    /// Be brought back from a state that was saved after its start.
    pub restore: bool,
    /// Have several brought back from the same state.
    pub clone: bool,
}

/// One sandbox, by who speaks with it. Dropping it ends nothing: another can
/// [find](Backend::find) it again. Its descriptor is readable when it says something, or has ended.
pub trait Sandbox: Send + AsFd {
    /// Which.
    fn id(&self) -> SandboxId;

    /// Which of its lives.
    fn epoch(&self) -> Epoch;

    /// Starts the function, and waits until it asks for work, for at most `patience`.
    fn start(
        &mut self,
        start: &Start,
        patience: Duration,
        tell: &mut dyn FnMut(Told<'_>),
    ) -> Result<Started, SandboxError>;

    /// Gives it one request, and waits for the outcome.
    fn invoke(
        &mut self,
        work: Work<'_>,
        cancel: &Cancel,
        tell: &mut dyn FnMut(Told<'_>),
    ) -> Result<Outcome, SandboxError>;

    /// Waits for the outcome of a request that somebody else gave it.
    fn outcome(
        &mut self,
        request: RequestId,
        left: Duration,
        cancel: &Cancel,
        tell: &mut dyn FnMut(Told<'_>),
    ) -> Result<Outcome, SandboxError>;

    /// Takes in what it said while nothing was asked of it, and waits for nothing.
    fn listen(&mut self, tell: &mut dyn FnMut(Told<'_>)) -> Result<(), SandboxError>;
}

/// One request.
#[derive(Clone, Debug)]
pub struct Work<'a> {
    /// Its id.
    pub request: RequestId,
    /// What belongs to it.
    pub ask: Ask,
    /// Time that it has.
    pub left: Duration,
    /// Its payload, at most [`MAX_BODY`](crate::channel::MAX_BODY) bytes.
    pub payload: &'a [u8],
}

/// A start that went well.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Started {
    /// What was made inside before the function's own first instruction, and when it was done:
    /// microseconds since the request to start arrived there.
    pub steps: Vec<(String, u64)>,
    /// When the function asked for work: nanoseconds since boot, of the node or of the guest.
    pub ready_boottime_ns: u64,
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The function answered.
    Answered(Vec<u8>),
    /// It did not, or said an error. Whether the sandbox lives on is told by its next use.
    Failed {
        /// The function's word for it, or one of [`fault`](super::message::fault).
        kind: String,
        /// What the function said of it, JSON by convention; empty where it said nothing.
        body: Vec<u8>,
    },
}

/// What comes from a sandbox in between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told<'a> {
    /// It wrote this.
    Log {
        /// Where to.
        stream: Stream,
        /// What.
        bytes: &'a [u8],
        /// Bytes before these that nobody took, and that are lost.
        dropped: u64,
    },
    /// Calls that were refused, by name.
    Refused(&'a BTreeMap<String, u64>),
}

/// Why a sandbox did not do what it was asked for. What it was doing is lost, and so is the
/// sandbox, unless the variant says otherwise: it should be ended.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// There is none; nothing of it was made.
    #[error(transparent)]
    Spawner(#[from] SpawnerError),
    /// Its socket cannot be used.
    #[error("sandbox {sandbox} cannot be reached at {path}: {error}")]
    Connect {
        /// Which.
        sandbox: SandboxId,
        /// Where.
        path: String,
        /// What the kernel said.
        error: io::Error,
    },
    /// The function did not start.
    #[error("{why}")]
    NotStarted {
        /// Why.
        why: NotStarted,
        /// What the function said of it, JSON by convention; empty where it said nothing.
        said: Vec<u8>,
    },
    /// It went away in the middle: it was killed from outside, or ran out of memory.
    #[error(
        "the sandbox ended before it said what became of the request: it was killed, by somebody or for want of memory"
    )]
    Gone,
    /// It has not said anything in time, not even that the time is over.
    #[error("the sandbox did not answer within {} s", .0.as_secs_f64())]
    Silent(Duration),
    /// It said something that does not belong here.
    #[error("the sandbox said something out of turn: {0}")]
    OutOfTurn(String),
    /// What should be sent cannot be. The sandbox is as it was.
    #[error(transparent)]
    Unsendable(crate::channel::FrameError),
    /// The channel broke while sending.
    #[error(transparent)]
    Send(SendError),
    /// The channel broke while receiving.
    #[error(transparent)]
    Receive(ReceiveError),
    /// Another program uses the spawner: two would take each other's sandboxes for leftovers.
    #[error("{path}: another program uses this hearth-spawner")]
    Owned {
        /// The lock that it holds.
        path: String,
    },
    /// The lock of who uses the spawner cannot be had.
    #[error("{path}: cannot be locked: {error}")]
    Lock {
        /// The lock.
        path: String,
        /// What the kernel said.
        error: io::Error,
    },
    /// No descriptor for it.
    #[error("no means to cancel a request: {0}")]
    Cancel(io::Error),
}

impl From<SendError> for SandboxError {
    fn from(error: SendError) -> Self {
        match error {
            SendError::Frame(error) => Self::Unsendable(error),
            // The other end has closed: what it said before can still be read, but nobody waits.
            SendError::Io(_) => Self::Gone,
            SendError::Deadline(_) => Self::Send(error),
        }
    }
}

/// Says once, from any thread, that nobody wants an answer any more.
#[derive(Clone, Debug)]
pub struct Cancel(Arc<OwnedFd>);

impl Cancel {
    /// Not said yet.
    pub fn new() -> Result<Self, SandboxError> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let event = eventfd(0, flags).map_err(|error| SandboxError::Cancel(error.into()))?;
        Ok(Self(Arc::new(event)))
    }

    /// Says it.
    pub fn cancel(&self) {
        // It can only fail when it was said 2^64 times.
        let _ = rustix::io::write(&*self.0, &1_u64.to_ne_bytes());
    }
}

impl AsFd for Cancel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
