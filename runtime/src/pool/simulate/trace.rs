//! What is simulated: functions, and who asks for which of them when.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::super::Moment;

/// Functions and their requests, in order of time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Trace {
    functions: Vec<Function>,
    arrivals: Vec<Arrival>,
    end: Moment,
}

/// One function of a trace.
#[derive(Clone, Debug, PartialEq)]
pub struct Function {
    /// What the trace calls it.
    pub name: String,
    /// What it belongs to.
    pub app: String,
    /// What it is asked by, where that is known.
    pub trigger: Option<Trigger>,
    /// Memory that an instance takes, in bytes.
    pub memory_bytes: u64,
    /// How long an instance takes to start.
    pub start: Duration,
}

/// What a function is asked by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Trigger {
    /// Somebody who waits for the answer.
    Http,
    /// A message.
    Queue,
    /// A clock.
    Timer,
    /// Another function that waits for it.
    Orchestration,
    /// A file that changed.
    Storage,
    /// A stream of events.
    Event,
    /// Anything else.
    Others,
}

impl Trigger {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Http,
        Self::Queue,
        Self::Timer,
        Self::Orchestration,
        Self::Storage,
        Self::Event,
        Self::Others,
    ];

    /// The word for it, as the traces of Azure Functions have it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Queue => "queue",
            Self::Timer => "timer",
            Self::Orchestration => "orchestration",
            Self::Storage => "storage",
            Self::Event => "event",
            Self::Others => "others",
        }
    }
}

/// One request. There are millions of them: it is kept small.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Arrival {
    at_ns: u64,
    function: u32,
    work_us: u32,
}

impl Arrival {
    /// When it came.
    #[must_use]
    pub const fn at(self) -> Moment {
        Moment(Duration::from_nanos(self.at_ns))
    }

    /// For which of the trace's functions.
    #[must_use]
    pub const fn function(self) -> usize {
        self.function as usize
    }

    /// How long the function is at work on it: to the microsecond, and at most 71 minutes.
    #[must_use]
    pub const fn work(self) -> Duration {
        Duration::from_micros(self.work_us as u64)
    }
}

impl Trace {
    /// All functions.
    #[must_use]
    pub fn functions(&self) -> &[Function] {
        &self.functions
    }

    /// All requests, in order of time.
    #[must_use]
    pub fn arrivals(&self) -> &[Arrival] {
        &self.arrivals
    }

    /// When it ends: what is idle then is not counted any further.
    #[must_use]
    pub const fn end(&self) -> Moment {
        self.end
    }
}

/// Makes a trace of what comes in any order, up to a limit.
#[derive(Debug)]
pub struct Builder {
    trace: Trace,
    limit: usize,
}

/// More requests than the trace may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("more than {limit} requests: take fewer functions")]
pub struct TooMany {
    /// How many it may have.
    pub limit: usize,
}

impl Builder {
    /// Of at most so many requests, 16 bytes each.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self {
            trace: Trace::default(),
            limit,
        }
    }

    /// Adds a function; what it is called in [`Self::arrive`].
    pub fn function(&mut self, function: Function) -> u32 {
        self.trace.functions.push(function);
        u32::try_from(self.trace.functions.len() - 1).unwrap_or(u32::MAX)
    }

    /// One that was added; it may be changed.
    pub fn function_mut(&mut self, function: u32) -> Option<&mut Function> {
        self.trace.functions.get_mut(function as usize)
    }

    /// Adds a request for a function that was added.
    pub fn arrive(&mut self, function: u32, at: Moment, work: Duration) -> Result<(), TooMany> {
        if self.trace.arrivals.len() >= self.limit {
            return Err(TooMany { limit: self.limit });
        }
        self.trace.arrivals.push(Arrival {
            at_ns: at.into(),
            function,
            work_us: u32::try_from(work.as_micros()).unwrap_or(u32::MAX),
        });
        Ok(())
    }

    /// The trace, which ends then, or with its last request if that is later.
    #[must_use]
    pub fn finish(self, end: Moment) -> Trace {
        let mut trace = self.trace;
        trace.arrivals.sort_unstable();
        let last = trace.arrivals.last().map(|arrival| arrival.at());
        trace.end = last.map_or(end, |last| last.max(end));
        trace
    }
}
