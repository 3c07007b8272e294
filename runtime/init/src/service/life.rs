//! Where the sandbox is, and when that must have changed.

use std::time::{Duration, Instant};

use hearth_runtime::id::{FunctionName, RequestId};
use hearth_runtime::sandbox::message::State;

use super::piece::Piece;

/// Who claimed the sandbox has so long to say what to start.
const CLAIMED: Duration = Duration::from_secs(10);
/// Who is connected at the end has so long to take what is told.
const LAST_WORDS: Duration = Duration::from_millis(200);
/// Who is not connected at the end has at most so long to come back for an outcome.
const ABSENT: Duration = Duration::from_secs(30);

/// A request that the function was given.
#[derive(Clone, Copy, Debug)]
pub(super) struct Work {
    pub(super) request: RequestId,
    /// The time that it had.
    pub(super) after: Duration,
    pub(super) until: Instant,
}

#[derive(Debug)]
pub(super) enum At {
    Parked {
        until: Instant,
    },
    Starting {
        after: Duration,
        until: Instant,
    },
    /// It may be given work.
    Ready,
    Work(Work),
    Over {
        since: Instant,
    },
}

/// What is told until it is known to have arrived.
#[derive(Debug)]
struct Outcome {
    request: RequestId,
    until: Instant,
    piece: Piece,
}

/// What time has brought.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Late {
    /// It is not ready.
    Start(Duration),
    /// It has not answered.
    Work(Duration),
}

#[derive(Debug)]
pub(super) struct Life {
    pub(super) at: At,
    pub(super) function: Option<(FunctionName, u32)>,
    outcome: Option<Outcome>,
    /// What is told to everybody once it is over.
    last: Vec<Piece>,
}

impl Life {
    pub(super) fn claimed(now: Instant) -> Self {
        Self {
            at: At::Parked {
                until: now + CLAIMED,
            },
            function: None,
            outcome: None,
            last: Vec::new(),
        }
    }

    pub(super) fn state(&self) -> State {
        match (&self.at, &self.outcome) {
            (At::Over { .. }, _) => State::Over,
            (At::Parked { .. }, _) => State::Parked,
            (At::Starting { .. }, _) => State::Starting,
            (At::Work(Work { request, .. }), _) => State::Work { request: *request },
            (At::Ready, Some(Outcome { request, .. })) => State::Answered { request: *request },
            (At::Ready, None) => State::Idle,
        }
    }

    pub(super) fn work(&self) -> Option<Work> {
        match self.at {
            At::Work(work) => Some(work),
            _ => None,
        }
    }

    pub(super) fn request(&self) -> Option<RequestId> {
        self.work().map(|work| work.request)
    }

    pub(super) fn is_over(&self) -> bool {
        matches!(self.at, At::Over { .. })
    }

    /// Why it may not be given work; none where it may.
    pub(super) fn busy(&self) -> Option<String> {
        match (&self.at, &self.outcome) {
            (At::Ready, None) => None,
            (At::Ready, Some(Outcome { request, .. })) => Some(format!(
                "nobody has said that the outcome of request {request} has arrived"
            )),
            (At::Work(Work { request, .. }), _) => Some(format!(
                "the function is at work on request {request}: a sandbox takes one at a time"
            )),
            (At::Parked { .. } | At::Starting { .. }, _) => {
                Some("the function is not ready yet".to_owned())
            }
            (At::Over { .. }, _) => Some("the sandbox is over".to_owned()),
        }
    }

    /// The outcome of the work, which is over.
    pub(super) fn conclude(&mut self, work: Work, piece: Piece) {
        self.at = At::Ready;
        self.outcome = Some(Outcome {
            request: work.request,
            until: work.until,
            piece,
        });
    }

    /// It has arrived.
    pub(super) fn taken(&mut self, request: RequestId) {
        self.outcome.take_if(|outcome| outcome.request == request);
    }

    /// It is over; these are the last words.
    pub(super) fn end(&mut self, now: Instant, last: Option<Piece>) {
        self.at = At::Over { since: now };
        self.last.extend(last);
    }

    /// What somebody who comes now has not been told.
    pub(super) fn untold(&self) -> impl Iterator<Item = &Piece> {
        let outcome = self.outcome.iter().map(|outcome| &outcome.piece);
        outcome.chain(&self.last)
    }

    /// What is late now. An outcome that nobody wants any more is dropped.
    pub(super) fn late(&mut self, now: Instant) -> Option<Late> {
        match self.at {
            At::Starting { after, until } if until <= now => Some(Late::Start(after)),
            At::Work(work) if work.until <= now => Some(Late::Work(work.after)),
            At::Ready => {
                self.outcome.take_if(|outcome| outcome.until <= now);
                None
            }
            _ => None,
        }
    }

    /// When to look again. `connected` is since when somebody is, and whether all that was told has
    /// been sent.
    pub(super) fn next(&self, connected: Option<(Instant, bool)>) -> Option<Instant> {
        match &self.at {
            At::Parked { until } | At::Starting { until, .. } | At::Work(Work { until, .. }) => {
                Some(*until)
            }
            At::Ready => self.outcome.as_ref().map(|outcome| outcome.until),
            At::Over { since } => match (connected, &self.outcome) {
                (Some((_, true)) | None, None) => Some(*since),
                (Some((from, _)), _) => Some(from.max(*since) + LAST_WORDS),
                (None, Some(outcome)) => Some(outcome.until.min(*since + ABSENT)),
            },
        }
    }

    /// Whether nothing is left to be done.
    pub(super) fn is_done(&self, now: Instant, connected: Option<(Instant, bool)>) -> bool {
        let waits = matches!(self.at, At::Parked { .. } | At::Over { .. });
        waits && self.next(connected).is_some_and(|until| until <= now)
    }
}
