//! How long starts took: as the kernel saw them where they are watched, else as they were timed.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hearth_runtime::id::FunctionName;
use hearth_runtime::pool::Input;

use super::Pools;
use crate::functions::manager::lock;
use crate::time::Boottime;

/// How long a start is waited for that somebody sees: it may be told a moment after it is ready.
const SEEN: Duration = Duration::from_secs(10);
/// Starts that are waited for.
const WAITING: usize = 1024;

/// Starts that somebody saw, who has not told of them yet.
#[derive(Debug, Default)]
pub(super) struct Measuring {
    /// Timed, and not told of yet.
    timed: VecDeque<Start>,
    /// Told of, and not timed yet: what is seen does not wait for a warm-up.
    seen: VecDeque<(Boottime, Duration)>,
}

#[derive(Debug)]
struct Start {
    claimed: Boottime,
    function: FunctionName,
    timed: Duration,
    since: Instant,
}

impl Measuring {
    /// Takes out what is waited for no longer.
    fn late(&mut self, now: Instant) -> Vec<Start> {
        let is_late = |start: &Start| now.saturating_duration_since(start.since) >= SEEN;
        let late = self.timed.iter().take_while(|start| is_late(start)).count();
        let over = self.timed.len().saturating_sub(WAITING);
        self.timed.drain(..late.max(over)).collect()
    }
}

impl Pools {
    /// A start took so long, as this agent timed it.
    pub(super) fn timed(
        self: &Arc<Self>,
        function: FunctionName,
        claimed: Boottime,
        timed: Duration,
    ) {
        if self.watcher.is_none() {
            return self.measured(function, timed);
        }
        let mut measuring = lock(&self.measuring);
        let early = measuring.seen.iter().position(|(at, _)| *at == claimed);
        if let Some((_, took)) = early.and_then(|at| measuring.seen.remove(at)) {
            drop(measuring);
            return self.measured(function, took);
        }
        measuring.timed.push_back(Start {
            claimed,
            function,
            timed,
            since: Instant::now(),
        });
    }

    /// The start that this claim began took so long, as the kernel saw it.
    pub(in super::super) fn saw(self: &Arc<Self>, claimed: Boottime, took: Duration) {
        let seen = {
            let mut measuring = lock(&self.measuring);
            let at = measuring
                .timed
                .iter()
                .position(|one| one.claimed == claimed);
            let start = at.and_then(|at| measuring.timed.remove(at));
            if start.is_none() {
                if measuring.seen.len() >= WAITING {
                    measuring.seen.pop_front();
                }
                measuring.seen.push_back((claimed, took));
            }
            start
        };
        if let Some(start) = seen {
            self.measured(start.function, took);
        }
    }

    /// Goes on without those that nobody told of in time.
    pub(in super::super) fn give_up_measuring(self: &Arc<Self>) {
        let late = lock(&self.measuring).late(Instant::now());
        for start in late {
            self.measured(start.function, start.timed);
        }
    }

    fn measured(self: &Arc<Self>, function: FunctionName, start: Duration) {
        self.tell(|_, _, _| Some(Input::Measured { function, start }));
    }
}
