//! A decision that is acted upon, until its outcomes are known.

use std::time::Duration;

use hearth_runtime::id::{FunctionName, RequestId};

use super::audit::{Entry, Outcome, Resolved};
use super::decide::Action;
use super::fault::Interrupted;
use crate::observe::healing::{HealAction, Healing};
use crate::time::{Boottime, Nanos};

/// A decision that is acted upon.
#[derive(Debug)]
pub(super) struct Pending {
    /// Its line.
    pub(super) line: u64,
    pub(super) function: FunctionName,
    /// What is told in the end.
    pub(super) healing: Healing,
    /// What is not known yet.
    pub(super) waits: Vec<Wait>,
}

/// An action whose outcome is waited for.
#[derive(Debug)]
pub(super) struct Wait {
    action: &'static str,
    what: Waiting,
    pub(super) until: Boottime,
}

#[derive(Debug, PartialEq, Eq)]
enum Waiting {
    /// For an instance, once it is known which.
    Instance(Option<u64>),
    /// For the end of a request.
    Request(RequestId),
}

impl Wait {
    pub(super) fn is_instance(&self, instance: u64) -> bool {
        self.what == Waiting::Instance(Some(instance))
    }

    pub(super) fn is_request(&self, request: RequestId) -> bool {
        self.what == Waiting::Request(request)
    }
}

impl Pending {
    pub(super) const fn new(line: u64, function: FunctionName, healing: Healing) -> Self {
        Self {
            line,
            function,
            healing,
            waits: Vec::new(),
        }
    }

    /// The outcome of this action is waited for, for as long after the fault.
    pub(super) fn expect(
        &mut self,
        action: &Action,
        request: Option<&Interrupted>,
        at: Boottime,
        patience: Duration,
    ) {
        let (what, patience) = match (action, request) {
            (Action::Replay { .. }, Some(request)) => {
                let left = Duration::from_millis(request.left_ms);
                (Waiting::Request(request.id), patience.max(left))
            }
            _ => (Waiting::Instance(None), patience),
        };
        let nanos = u64::try_from(patience.as_nanos()).unwrap_or(u64::MAX);
        self.waits.push(Wait {
            action: action.word(),
            what,
            until: Boottime(at.0.saturating_add(nanos)),
        });
    }

    /// This instance takes no place: another one may.
    pub(super) fn give_place_back(&mut self, instance: u64) {
        let mut waits = self.waits.iter_mut();
        if let Some(wait) = waits.find(|wait| wait.is_instance(instance)) {
            wait.what = Waiting::Instance(None);
        }
    }

    /// This instance takes the place of the lost one, if none does yet.
    pub(super) fn take_place(&mut self, instance: u64) -> Option<()> {
        let mut waits = self.waits.iter_mut();
        let wait = waits.find(|wait| wait.what == Waiting::Instance(None))?;
        wait.what = Waiting::Instance(Some(instance));
        Some(())
    }

    /// It is not waited for any more.
    pub(super) fn take(&mut self, which: impl Fn(&Wait) -> bool) -> Option<Wait> {
        let at = self.waits.iter().position(which)?;
        Some(self.waits.remove(at))
    }

    /// Its outcome, but for what it is.
    pub(super) fn outcome(&self, wait: &Wait, now: Boottime) -> Outcome {
        let request = match wait.what {
            Waiting::Request(request) => Some(request),
            Waiting::Instance(_) => None,
        };
        Outcome {
            request,
            took_ms: Some(millis(now.since(self.healing.at))),
            ..outcome(self.line, &self.function, wait.action)
        }
    }

    /// Takes note of an outcome, for the end.
    pub(super) fn note(&mut self, outcome: &Outcome, claimed: Option<Boottime>, now: Boottime) {
        self.healing.ended = now;
        let mut actions = self.healing.actions.iter_mut();
        let Some(action) = actions.find(|action| action.action == outcome.action) else {
            return;
        };
        *action = HealAction {
            action: outcome.action.clone(),
            outcome: outcome.outcome.word(),
            is_bad: matches!(outcome.outcome, Resolved::Failed | Resolved::TimedOut),
            sandbox: outcome.sandbox.map(|sandbox| sandbox.to_string()),
            memory_bytes: outcome.memory_bytes,
            why: outcome.why.clone(),
            claimed,
        };
    }

    /// The outcomes of all that was decided, as nothing is done.
    pub(super) fn all_at_once(&mut self, resolved: Resolved) -> Vec<Entry> {
        self.waits.clear();
        let actions = self.healing.actions.iter();
        let outcomes = actions.map(|action| {
            Entry::Outcome(Outcome {
                outcome: resolved,
                ..outcome(self.line, &self.function, &action.action)
            })
        });
        outcomes.collect()
    }
}

fn outcome(of: u64, function: &FunctionName, action: &str) -> Outcome {
    Outcome {
        of,
        function: function.clone(),
        action: action.to_owned(),
        outcome: Resolved::Unknown,
        sandbox: None,
        memory_bytes: None,
        request: None,
        took_ms: None,
        why: String::new(),
    }
}

fn millis(time: Nanos) -> u64 {
    time.0 / 1_000_000
}
