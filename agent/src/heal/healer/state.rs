//! What is under way, and what is still to be written down.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hearth_runtime::id::FunctionName;

use super::Verdict;
use super::told::resolve_all;
use crate::heal::audit::{Audit, AuditError, Decided, Entry, Resolved};
use crate::heal::budget::Budget;
use crate::heal::decide::{Action, Terms};
use crate::heal::fault::{Fault, Mode};
use crate::heal::pending::Pending;
use crate::observe::healing::Healing;
use crate::time::Boottime;

/// Outcomes that wait to be written; of those beyond it the next agent says that they are not known.
const MAX_UNSAID: usize = 1024;
/// How long a replacement may wait for memory or for a slot, beside its pause and its start.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) struct State {
    pub(super) audit: Audit,
    pub(super) budget: Budget,
    /// Decisions that led to nothing, as actions are counted.
    pub(super) quiet: Budget,
    pub(super) unwritten: BTreeMap<FunctionName, u64>,
    /// By the line of the decision.
    pub(super) pending: BTreeMap<u64, Pending>,
    /// Outcomes that could not be written yet.
    pub(super) unsaid: Vec<Entry>,
}

impl State {
    pub(super) fn append(
        &mut self,
        at: Boottime,
        entries: &[Entry],
    ) -> Result<(Vec<u64>, String), AuditError> {
        let (lines, chain) = self.audit.append(at, unix_ms(), entries)?;
        Ok((lines, chain.to_string()))
    }

    /// Writes outcomes, now or as soon as that can be done; the chain up to them where it was now.
    pub(super) fn conclude(&mut self, at: Boottime, outcomes: Vec<Entry>) -> Option<String> {
        match self.append(at, &outcomes) {
            Ok((_, chain)) => {
                self.say_unsaid();
                Some(chain)
            }
            Err(error) if self.unsaid.len() < MAX_UNSAID => {
                tracing::warn!("an outcome is not in the audit yet: {error}");
                self.unsaid.extend(outcomes);
                None
            }
            Err(error) => {
                tracing::warn!("an outcome is not in the audit: {error}");
                None
            }
        }
    }

    pub(super) fn say_unsaid(&mut self) {
        let unsaid = std::mem::take(&mut self.unsaid);
        if !unsaid.is_empty() && self.append(Boottime::now(), &unsaid).is_err() {
            self.unsaid = unsaid;
        }
    }

    /// A function is gone, and so is what is known of it.
    pub(super) fn forget(&mut self, function: &FunctionName) {
        let entry = Entry::Removed {
            function: function.clone(),
        };
        if let Err(error) = self.append(Boottime::now(), &[entry]) {
            tracing::warn!("that function {function} was removed is not in the audit: {error}");
            self.audit.forget(function);
        }
    }

    /// Whether a decision that leads to nothing is written, or only counted. How a function is left
    /// alone goes on after this agent, so that is written: with each failure, that is less often.
    pub(super) fn is_worth_a_line(&mut self, fault: &Fault) -> bool {
        let failing = self
            .audit
            .standing()
            .failing(&fault.function, fault.version);
        if fault.failing.is_some() && fault.failing != failing {
            return true;
        }
        if self.quiet.left(&fault.function, fault.at).0.is_ok() {
            self.quiet.spend(&fault.function, fault.at);
            return true;
        }
        *self.unwritten.entry(fault.function.clone()).or_default() += 1;
        false
    }

    /// Writes a decision; what is to be done then, or what is to be told at once as nothing is.
    pub(super) fn decide(
        &mut self,
        decided: Decided,
        terms: &Terms,
        pause: Duration,
        mut healing: Healing,
        resolved: Option<Resolved>,
    ) -> Result<Verdict, Box<Healing>> {
        let Decided {
            fault,
            decision,
            mode,
            ..
        } = &decided;
        let (function, at) = (fault.function.clone(), fault.at);
        let (actions, request) = (decision.actions.clone(), fault.request);
        let is_counted = *mode != Mode::Observe && !actions.is_empty();
        let entry = Entry::Decision(Box::new(decided));
        let line = match self.append(Boottime::now(), &[entry]) {
            Ok((lines, chain)) => {
                healing.chain = Some(chain);
                lines.first().copied().unwrap_or_default()
            }
            Err(error) => {
                tracing::error!(
                    "function {function}: nothing is done, as the decision cannot be written: {error}"
                );
                resolve_all(&mut healing, "not_written", true, &error.to_string());
                return Err(Box::new(healing));
            }
        };
        healing.line = Some(line);
        if is_counted {
            self.budget.spend(&function, at);
        }
        let mut pending = Pending::new(line, function, healing);
        for action in &actions {
            pending.expect(action, request.as_ref(), at, pause + terms.start + PATIENCE);
        }
        let Some(resolved) = resolved else {
            let verdict = Verdict {
                replace: actions.iter().any(Action::replaces),
                raise: actions
                    .iter()
                    .any(|action| matches!(action, Action::Raise { .. })),
                replay: actions
                    .iter()
                    .any(|action| matches!(action, Action::Replay { .. })),
            };
            self.pending.insert(line, pending);
            return Ok(verdict);
        };
        let outcomes = pending.all_at_once(resolved);
        let chain = self.conclude(Boottime::now(), outcomes);
        pending.healing.chain = chain.or(pending.healing.chain);
        resolve_all(&mut pending.healing, resolved.word(), false, "");
        Err(Box::new(pending.healing))
    }
}

pub(super) fn unix_ms() -> u64 {
    let unix = SystemTime::now().duration_since(UNIX_EPOCH);
    u64::try_from(unix.unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
}
