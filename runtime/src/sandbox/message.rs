//! What is said on the channel of a sandbox.
//!
//! Who connects is told first where the sandbox is ([`FromSandbox::Hello`]), then what it has not
//! been told yet: a result waits in there for who comes back, until the deadline of its request.
//! Who connects last is the one that is spoken with.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::start::Start;
use crate::id::{FunctionName, RequestId};

/// To `hearth-init`. The deadline is in the frame.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "to", rename_all = "snake_case")]
pub enum ToSandbox {
    /// Start the function; once. It must be ready within the frame's time left.
    Start(Box<Start>),
    /// Give it work. The frame has the request, the time left for it, and the payload. What is not
    /// answered in time ends the sandbox.
    Invoke(Ask),
    /// Nobody wants the answer of the frame's request any more. What a function is doing cannot be
    /// undone: this ends the sandbox.
    Cancel,
    /// The outcome of the frame's request has arrived: it needs not be kept.
    Taken,
}

/// What belongs to a request beside its payload.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ask {
    /// `Lambda-Runtime-Invoked-Function-Arn`.
    pub arn: String,
    /// `Lambda-Runtime-Trace-Id`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<String>,
    /// `Lambda-Runtime-Client-Context`, JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_context: Option<String>,
    /// `Lambda-Runtime-Cognito-Identity`, JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
}

/// From `hearth-init`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "from", rename_all = "snake_case")]
pub enum FromSandbox {
    /// First on every connection.
    Hello {
        /// Where it is.
        state: State,
        /// What it was started as; none before [`ToSandbox::Start`].
        function: Option<(FunctionName, u32)>,
    },
    /// The function's first process exists; its number as the sandbox sees it.
    Spawned {
        /// Microseconds since the start came in, by step: what was made until then.
        steps: Vec<(String, u64)>,
    },
    /// The function asked for work for the first time.
    Ready {
        /// When, by the clock of the kernel that `hearth-init` runs on: nanoseconds since its boot.
        boottime_ns: u64,
    },
    /// It will never be ready. The sandbox ends.
    NotStarted {
        /// Why.
        why: NotStarted,
    },
    /// The frame's request was answered; the body is the answer.
    Answered,
    /// The frame's request was not answered; the body is what the function said of it, if anything.
    Failed {
        /// The function's word for it, or one of [`fault`].
        kind: String,
    },
    /// It wrote this: the body, whole lines where they are short.
    Log {
        /// Where to.
        stream: Stream,
        /// Bytes that were written before and had to be thrown away, as nobody took them.
        #[serde(default)]
        dropped: u64,
    },
    /// Calls that were refused since this was last told, by name.
    Refused {
        /// How often.
        calls: BTreeMap<String, u64>,
    },
    /// The function's first process has ended, and with it the sandbox.
    Exited {
        /// How.
        how: Exit,
    },
}

/// Where a sandbox is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "at", rename_all = "snake_case")]
pub enum State {
    /// Nothing was started.
    Parked,
    /// The function starts.
    Starting,
    /// It waits for work.
    Idle,
    /// It is at work.
    Work {
        /// On this.
        request: RequestId,
    },
    /// It has answered, and nobody has taken the answer yet.
    Answered {
        /// This request.
        request: RequestId,
    },
    /// It is over.
    Over,
}

/// Why a function did not start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "why", rename_all = "snake_case")]
pub enum NotStarted {
    /// The sandbox could not be made.
    #[error("the sandbox could not be made: {step}: {error}")]
    Sandbox {
        /// What was being done.
        step: String,
        /// What the kernel said.
        error: String,
    },
    /// Its program could not be run.
    #[error("`{command}` cannot be run: {error}")]
    Program {
        /// Which.
        command: String,
        /// What the kernel said.
        error: String,
    },
    /// It said so itself (`/init/error`); what it said is the frame's body.
    #[error("the function says that it cannot start: {kind}")]
    Itself {
        /// Its word for it.
        kind: String,
    },
    /// It ended before it asked for work.
    #[error("the function ended before it asked for work: {how}")]
    Exited {
        /// How.
        how: Exit,
    },
    /// It had not asked for work in time.
    #[error("the function did not ask for work within {} s", .after.as_secs_f64())]
    Deadline {
        /// The time that it had.
        after: Duration,
    },
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Exit {
    /// By itself, with this status.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// Nobody who is left saw it.
    Unknown,
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit status {code}"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
            Self::Unknown => f.write_str("nobody saw how"),
        }
    }
}

/// An output of a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

/// Kinds of failures that no function named, as AWS Lambda calls them.
pub mod fault {
    /// The deadline has passed.
    pub const TIMED_OUT: &str = "Sandbox.Timedout";
    /// Somebody asked for it.
    pub const CANCELLED: &str = "Sandbox.Cancelled";
    /// The function ended while it was at work.
    pub const EXITED: &str = "Runtime.ExitError";
    /// The function was not given it: it is not ready, has work, or the outcome of its last one was
    /// not [taken](super::ToSandbox::Taken). Nothing else follows from it.
    pub const REFUSED: &str = "Sandbox.Refused";
}
