//! One function's side of the Runtime API: what it is doing, and what each of its calls leads to.
//!
//! One invocation at a time. What a function may do when follows from where it is:
//!
//! ```text
//! starting --next--> idle --invoke--> at work --response, error--> resting --next--> idle
//!    `--init/error--> failed                                          (an invocation may wait here)
//! ```

use std::collections::VecDeque;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::http::{Reply, Request};
use super::route::Call;
use crate::id::RequestId;

/// The kind of an error that a function did not name.
pub const UNHANDLED_KIND: &str = "Unhandled";
/// The kind of the error of an answer over the limit, as AWS Lambda calls it.
pub const TOO_LARGE_KIND: &str = "Function.ResponseSizeTooLarge";
/// Connections of a function that wait for work at once; one is what a runtime needs.
const MAX_WAITING: usize = 16;
/// Bytes of an error type, a word.
const MAX_KIND: usize = 256;

/// What a function is given to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Invocation {
    /// Its id.
    pub request: RequestId,
    /// `Lambda-Runtime-Invoked-Function-Arn`.
    pub arn: String,
    /// Time that it has from now on.
    pub left: Duration,
    /// `Lambda-Runtime-Trace-Id`.
    pub trace: Option<String>,
    /// `Lambda-Runtime-Client-Context`, JSON.
    pub client_context: Option<String>,
    /// `Lambda-Runtime-Cognito-Identity`, JSON.
    pub identity: Option<String>,
    /// Its payload.
    pub payload: Vec<u8>,
}

/// What follows from a call or an invocation. `C` names a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect<C> {
    /// Reply to a connection.
    Reply(C, Reply),
    /// Tell who runs the sandbox.
    Tell(Happening),
}

/// What happened, for who runs the sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Happening {
    /// The function asked for work for the first time: its start is over.
    Ready,
    /// It said that it cannot start.
    InitFailed {
        /// Its word for the error.
        kind: String,
        /// The error, JSON by convention.
        body: Vec<u8>,
    },
    /// It answered an invocation.
    Answered {
        /// Which.
        request: RequestId,
        /// The answer.
        body: Vec<u8>,
    },
    /// It told an error instead, or its answer could not be taken.
    Failed {
        /// Which invocation.
        request: RequestId,
        /// Its word for the error.
        kind: String,
        /// The error, JSON by convention.
        body: Vec<u8>,
    },
    /// It is where a snapshot may be taken (`/restore/next`); its reply comes with
    /// [`Session::restored`].
    Restorable,
    /// Its hooks after a restore failed.
    RestoreFailed {
        /// Its word for the error.
        kind: String,
        /// The error, JSON by convention.
        body: Vec<u8>,
    },
}

/// Why an invocation was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It has one already.
    #[error("the function is at work on another request: a sandbox takes one at a time")]
    Busy,
    /// It said that it cannot start.
    #[error("the function failed to start")]
    Failed,
}

/// Where the function is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Starting,
    Idle,
    Work(RequestId),
    Resting,
    Failed,
}

/// One function's side of the Runtime API.
#[derive(Debug)]
pub struct Session<C> {
    at: At,
    /// Was ready once.
    was_ready: bool,
    /// Connections in `/invocation/next`, the first first.
    waiting: VecDeque<C>,
    /// The connection in `/restore/next`.
    restoring: Option<C>,
    /// Came before the function asked for it.
    pending: Option<Invocation>,
    /// The last that was answered: saying it again is another mistake than an unknown id.
    answered: Option<RequestId>,
}

impl<C: Copy + PartialEq> Default for Session<C> {
    fn default() -> Self {
        Self::new()
    }
}

impl<C: Copy + PartialEq> Session<C> {
    /// Of a function that is starting.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            at: At::Starting,
            was_ready: false,
            waiting: VecDeque::new(),
            restoring: None,
            pending: None,
            answered: None,
        }
    }

    /// The invocation that it was given and has not answered.
    #[must_use]
    pub const fn at_work(&self) -> Option<RequestId> {
        match self.at {
            At::Work(request) => Some(request),
            _ => None,
        }
    }

    /// Gives it work: at once where it waits for some, else when it next asks.
    pub fn invoke(&mut self, invocation: Invocation) -> Result<Vec<Effect<C>>, Refused> {
        match self.at {
            At::Failed => return Err(Refused::Failed),
            At::Work(_) => return Err(Refused::Busy),
            _ if self.pending.is_some() => return Err(Refused::Busy),
            At::Starting | At::Idle | At::Resting => self.pending = Some(invocation),
        }
        Ok(self.hand_over().into_iter().collect())
    }

    /// A call came in on `connection`.
    pub fn call(&mut self, connection: C, request: Request) -> Vec<Effect<C>> {
        let call = match Call::of(&request) {
            Ok(call) => call,
            Err(error) => return vec![Effect::Reply(connection, error.reply())],
        };
        match call {
            Call::Next => self.next(connection),
            Call::Response(id) => self.response(connection, id, request),
            Call::Error(id) => self.error(connection, id, request),
            Call::InitError => self.init_error(connection, request),
            Call::RestoreNext => self.restore_next(connection),
            Call::RestoreError => self.restore_error(connection, request),
        }
    }

    /// A connection was closed: nobody waits on it any more.
    pub fn closed(&mut self, connection: C) {
        self.waiting.retain(|waiting| *waiting != connection);
        self.restoring = self.restoring.filter(|waiting| *waiting != connection);
        if self.at == At::Idle && self.waiting.is_empty() {
            // Whoever asked is gone; it is ready again when it asks again.
            self.at = At::Resting;
        }
    }

    /// The sandbox was restored from the snapshot that was taken in `/restore/next`, or goes on
    /// after it was taken.
    pub fn restored(&mut self) -> Option<Effect<C>> {
        let connection = self.restoring.take()?;
        Some(Effect::Reply(connection, Reply::new(200, "{}")))
    }

    fn next(&mut self, connection: C) -> Vec<Effect<C>> {
        match self.at {
            At::Work(request) => {
                let message = format!("request {request} is not answered yet");
                return refuse(connection, &message);
            }
            At::Failed => return refuse(connection, "the function said that it cannot start"),
            _ if self.waiting.len() >= MAX_WAITING => {
                let message = format!("{MAX_WAITING} connections wait for work already");
                return vec![Effect::Reply(
                    connection,
                    Reply::error(503, "TooManyConnections", &message),
                )];
            }
            At::Starting | At::Idle | At::Resting => {}
        }
        self.waiting.push_back(connection);
        self.at = At::Idle;
        let first = !std::mem::replace(&mut self.was_ready, true);
        let ready = first.then_some(Effect::Tell(Happening::Ready));
        ready.into_iter().chain(self.hand_over()).collect()
    }

    /// Work meets a connection that waits for some.
    fn hand_over(&mut self) -> Option<Effect<C>> {
        if self.at != At::Idle || self.pending.is_none() {
            return None;
        }
        let connection = self.waiting.pop_front()?;
        let invocation = self.pending.take()?;
        self.at = At::Work(invocation.request);
        Some(Effect::Reply(connection, work(invocation)))
    }

    fn response(&mut self, connection: C, id: RequestId, request: Request) -> Vec<Effect<C>> {
        if let Err(reply) = self.finish(id) {
            return vec![Effect::Reply(connection, reply)];
        }
        // A streamed answer that breaks off says so after its body.
        let broke_off = request
            .header("lambda-runtime-function-error-type")
            .is_some();
        let (status, happening) = match request.body {
            None => {
                let message = "the answer has more than 6291456 bytes";
                let reply = Reply::error(413, "RequestEntityTooLarge", message);
                let kind = TOO_LARGE_KIND.to_owned();
                let error = serde_json::json!({"errorType": kind, "errorMessage": message});
                let body = error.to_string().into_bytes();
                let happening = Happening::Failed {
                    request: id,
                    kind,
                    body,
                };
                (reply, happening)
            }
            Some(_) if broke_off => {
                let kind = kind(&request);
                let body = request.header("lambda-runtime-function-error-body");
                let body = body.unwrap_or_default().as_bytes().to_vec();
                let happening = Happening::Failed {
                    request: id,
                    kind,
                    body,
                };
                (accepted(), happening)
            }
            Some(body) => (accepted(), Happening::Answered { request: id, body }),
        };
        vec![Effect::Reply(connection, status), Effect::Tell(happening)]
    }

    fn error(&mut self, connection: C, id: RequestId, request: Request) -> Vec<Effect<C>> {
        if let Err(reply) = self.finish(id) {
            return vec![Effect::Reply(connection, reply)];
        }
        let kind = kind(&request);
        let failed = Happening::Failed {
            request: id,
            kind,
            body: request.body.unwrap_or_default(),
        };
        vec![Effect::Reply(connection, accepted()), Effect::Tell(failed)]
    }

    /// The work is over, if it is this one that there was.
    fn finish(&mut self, id: RequestId) -> Result<(), Reply> {
        if self.at == At::Work(id) {
            self.at = At::Resting;
            self.answered = Some(id);
            return Ok(());
        }
        let message = if self.answered == Some(id) {
            format!("request {id} was answered already")
        } else {
            format!("request {id} was not given to this function, or not lately")
        };
        Err(Reply::error(400, "InvalidRequestID", &message))
    }

    fn init_error(&mut self, connection: C, request: Request) -> Vec<Effect<C>> {
        if self.was_ready || self.at != At::Starting {
            return refuse(connection, "the function has started already");
        }
        self.at = At::Failed;
        let failed = Happening::InitFailed {
            kind: kind(&request),
            body: request.body.unwrap_or_default(),
        };
        vec![Effect::Reply(connection, accepted()), Effect::Tell(failed)]
    }

    fn restore_next(&mut self, connection: C) -> Vec<Effect<C>> {
        if self.was_ready || self.at != At::Starting || self.restoring.is_some() {
            return refuse(connection, "the function has started already");
        }
        self.restoring = Some(connection);
        vec![Effect::Tell(Happening::Restorable)]
    }

    fn restore_error(&mut self, connection: C, request: Request) -> Vec<Effect<C>> {
        if self.was_ready || self.at != At::Starting {
            return refuse(connection, "the function has started already");
        }
        self.at = At::Failed;
        let failed = Happening::RestoreFailed {
            kind: kind(&request),
            body: request.body.unwrap_or_default(),
        };
        vec![Effect::Reply(connection, accepted()), Effect::Tell(failed)]
    }
}

/// An invocation as the function gets it.
fn work(invocation: Invocation) -> Reply {
    // The API wants the deadline by the wall clock.
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let deadline = now.saturating_add(invocation.left).as_millis();
    let mut reply = Reply::new(200, invocation.payload);
    reply.headers = vec![
        (
            "Lambda-Runtime-Aws-Request-Id",
            invocation.request.to_string(),
        ),
        ("Lambda-Runtime-Deadline-Ms", deadline.to_string()),
        ("Lambda-Runtime-Invoked-Function-Arn", invocation.arn),
    ];
    let optional = [
        ("Lambda-Runtime-Trace-Id", invocation.trace),
        ("Lambda-Runtime-Client-Context", invocation.client_context),
        ("Lambda-Runtime-Cognito-Identity", invocation.identity),
    ];
    let told = optional
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)));
    reply.headers.extend(told);
    reply
}

fn accepted() -> Reply {
    Reply::new(202, r#"{"status":"OK"}"#)
}

fn refuse<C>(connection: C, message: &str) -> Vec<Effect<C>> {
    let reply = Reply::error(403, "InvalidStateTransition", message);
    vec![Effect::Reply(connection, reply)]
}

/// The function's word for its error.
fn kind(request: &Request) -> String {
    let kind = request.header("lambda-runtime-function-error-type");
    let kind = kind
        .filter(|kind| !kind.is_empty())
        .unwrap_or(UNHANDLED_KIND);
    kind.chars().take(MAX_KIND).collect()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests;
