//! How instances end that nobody retired: every such death passes here, once.

use std::sync::Arc;
use std::time::Duration;

use hearth_runtime::id::RequestId;
use hearth_runtime::pool::Input;
use hearth_runtime::sandbox::ask::Ended;
use hearth_runtime::sandbox::backend::Outcome;
use hearth_runtime::sandbox::message::Exit;

use super::live::{Birth, Doing};
use super::start::some;
use super::{Live, Pools};
use crate::functions::failure::{Unanswered, ran_out};
use crate::functions::manager::lock;
use crate::heal::fault::Interrupted;

/// The time in a sandbox is whole milliseconds, and counted by another clock.
const CLOCKS: Duration = Duration::from_millis(10);

/// The end of an instance.
#[derive(Clone, Debug)]
pub(in super::super) struct Death {
    /// What it was at.
    pub(in super::super) during: During,
    /// Why.
    pub(in super::super) cause: Cause,
    /// What the node knows of it; none where there was no sandbox, or the node was not heard.
    pub(in super::super) ended: Option<Ended>,
    /// How long it had been at it.
    pub(in super::super) elapsed: Duration,
    /// The request that may be done again, where one may.
    pub(in super::super) interrupted: Option<Interrupted>,
}

impl Death {
    /// Whether it is the function's own fault, so that another instance may end alike; `allowed` is
    /// the time that it may have for a request.
    pub(super) fn is_fault(&self, allowed: Duration) -> bool {
        match (self.cause, &self.during) {
            // It did nothing: whoever sent the signal did that from outside.
            (Cause::Exited, During::Idle) => !self.is_by_signal(),
            // Who asked may have given it less time than it needs: that is not its fault.
            (Cause::TimedOut, During::Work(_)) => self.elapsed + CLOCKS >= allowed,
            // What it was asked for may do the same to the next one.
            (Cause::OutOfMemory | Cause::Lost | Cause::Exited, _)
            | (Cause::Killed, During::Work(_)) => true,
            _ => false,
        }
    }

    /// Whether its first process was ended by a signal.
    pub(super) fn is_by_signal(&self) -> bool {
        let how = self.ended.as_ref().map(|ended| &ended.how);
        matches!(how, Some(Exit::Signal(_)))
    }

    /// What is told of it; none where that was told, or nothing is wrong.
    fn why(&self) -> Option<String> {
        let during = match self.during {
            During::Start(_) => return None,
            During::Idle => "while it waited for work".to_owned(),
            During::Work(request) => {
                let seconds = self.elapsed.as_secs_f64();
                format!("{seconds:.3} s into request {request}")
            }
        };
        let what = match self.cause {
            Cause::OutOfMemory => "it ran out of memory",
            Cause::Exited => "it ended",
            Cause::Killed => "it was killed",
            Cause::Lost => "it did not answer as it should",
            _ => return None,
        };
        let how = self.ended.as_ref();
        let how = how.map_or_else(String::new, |ended| format!(" ({})", ended.how));
        Some(format!("{what}{how} {during}"))
    }
}

/// What an instance was at when it ended.
#[derive(Clone, Debug)]
pub(in super::super) enum During {
    /// Its start.
    Start(Arc<Failure>),
    /// It waited for work.
    Idle,
    /// It was at work on this request.
    Work(RequestId),
}

/// Why an instance ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Cause {
    /// Somebody in it was killed for want of memory.
    OutOfMemory,
    /// The function's process ended.
    Exited,
    /// The sandbox went away without a word: somebody has killed it.
    Killed,
    /// Its time was over.
    TimedOut,
    /// Nobody waited for its answer any more.
    Cancelled,
    /// It does not answer, or said something out of turn.
    Lost,
    /// It was not started: the program cannot be run, or it said so itself.
    Refused,
    /// There was no sandbox for it.
    NoSandbox,
}

impl Cause {
    /// As far as the node knows better.
    pub(in super::super) fn or_memory(self, ended: Option<&Ended>) -> Self {
        if ran_out(ended) {
            Self::OutOfMemory
        } else {
            self
        }
    }
}

impl Failure {
    /// Why, in plain words.
    pub(super) fn why(&self) -> String {
        match &self.unanswered {
            Ok(Outcome::Failed { kind, body }) => format!("{kind}: {}", some(body)),
            Ok(Outcome::Answered(_)) => String::new(),
            Err(problem) => problem.to_string(),
        }
    }
}

/// A start that failed.
#[derive(Clone, Debug)]
pub(in super::super) struct Failure {
    /// What is told to who waited for it.
    pub(in super::super) unanswered: Unanswered,
    /// The version.
    pub(in super::super) version: u32,
    /// How far it came.
    pub(in super::super) birth: Birth,
}

impl Pools {
    /// An instance has ended, and nobody retired it; whether the request that it was at work on is to
    /// be done again.
    pub(in super::super) fn ended(self: &Arc<Self>, live: &Arc<Live>, death: Death) -> bool {
        if !live.has_ended() {
            // Somebody else has seen it before. Where it was given a request after that, the
            // function has never heard of it.
            return matches!(death.during, During::Work(_))
                && !matches!(death.cause, Cause::Cancelled | Cause::TimedOut);
        }
        self.is_over(live, death)
    }

    /// An instance that waited for work has ended; whether nobody has seen that, and nobody has been
    /// given it meanwhile: then who asks sees to it.
    pub(super) fn ended_idle(&self, live: &Live) -> bool {
        let inner = lock(&self.inner);
        let entry = inner.live.get(&live.instance);
        entry.is_some_and(|entry| matches!(entry.doing, Doing::Idle)) && live.has_ended()
    }

    /// What follows from the end of an instance, once.
    pub(super) fn is_over(self: &Arc<Self>, live: &Arc<Live>, death: Death) -> bool {
        let name = live.deployed.name.clone();
        if let Some(why) = death.why() {
            tracing::warn!("a sandbox of function {name} is gone: {why}");
            live.function.state().last_failure = Some(why);
        }
        // Before anything is done about it: what was decided is written down first.
        let verdict = self.heal(live, &death);
        let fault = death.is_fault(live.deployed.definition.timeout.0);
        self.tell(|inner, _, _| {
            let entry = inner.live.remove(&live.instance)?;
            if matches!(entry.doing, Doing::Retired) {
                return None;
            }
            let (function, instance) = (name, live.instance);
            let (replace, outgrown) = (verdict.replace, verdict.raise);
            Some(match death.during {
                During::Start(failure) => {
                    inner.failed = Some(failure);
                    Input::NotStarted {
                        function,
                        instance,
                        without: live.about().is_none(),
                        replace,
                        outgrown,
                    }
                }
                During::Idle | During::Work(_) => Input::Ended {
                    function,
                    instance,
                    fault,
                    replace,
                    outgrown,
                },
            })
        });
        live.function.tell_change();
        verdict.replay
    }

    /// Ends one that has ended by itself, or is of no use any more; what is known of it then.
    pub(in super::super) fn take_away(&self, live: &Live) -> Option<Ended> {
        self.end_sandbox(live)
    }
}
