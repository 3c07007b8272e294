//! Decides, writes it down, and sees what comes of it.

mod state;
mod told;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hearth_runtime::id::{FunctionName, RequestId, SandboxId};

use super::audit::{Audit, AuditError, Decided, Entry, Files, Opened, Outcome, Resolved, Wanted};
use super::budget::{self, Budget};
use super::decide::{Known, PoolNow, Terms, decide};
use super::fault::{Failing, Fault, Mode};
use super::memory::NodeMemory;
use super::pending::{Pending, Wait};
use crate::observe::healing::{HealAction, Healing};
use crate::observe::identity::boot_id;
use crate::time::Boottime;
use state::{State, unix_ms};
use told::{healing, nothing_done, say, shortened};

/// Lines of one function in the time of the budgets for decisions that lead to nothing; the rest is
/// counted.
const QUIET_LINES: u32 = 20;
/// Decisions under way, at most; the oldest are given up.
const MAX_PENDING: usize = 1024;

/// Decides about faults.
#[derive(Clone)]
pub struct Healer(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    /// Of the audit.
    directory: PathBuf,
    tell: Box<dyn Fn(Healing) + Send + Sync>,
    node: fn() -> Option<NodeMemory>,
}

/// What there is to set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of all files of the audit.
    pub audit_bytes: u64,
    /// Actions for one function in [`WITHIN`](budget::WITHIN).
    pub of_function: u32,
    /// Actions on the node in that time.
    pub of_node: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            audit_bytes: 32 << 20,
            of_function: budget::OF_FUNCTION,
            of_node: budget::OF_NODE,
        }
    }
}

/// What is to be done now. Nothing, unless the decision is written down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Another instance takes the place of the lost one.
    pub replace: bool,
    /// Those that start from now on have more memory than those before.
    pub raise: bool,
    /// The interrupted request is given to another instance.
    pub replay: bool,
}

/// An instance that came up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CameUp {
    /// Its sandbox.
    pub sandbox: SandboxId,
    /// When that was claimed.
    pub claimed: Option<Boottime>,
    /// The memory that it may have, as it was read back from its cgroup.
    pub memory_bytes: Option<u64>,
}

impl Healer {
    /// With the audit in `directory`; each healing is told to `tell` when its outcome is known, from
    /// whichever thread saw that.
    pub fn open(
        directory: &Path,
        limits: Limits,
        tell: impl Fn(Healing) + Send + Sync + 'static,
    ) -> Result<(Self, Opened), AuditError> {
        Self::open_on(directory, limits, NodeMemory::now, tell)
    }

    fn open_on(
        directory: &Path,
        limits: Limits,
        node: fn() -> Option<NodeMemory>,
        tell: impl Fn(Healing) + Send + Sync + 'static,
    ) -> Result<(Self, Opened), AuditError> {
        let boot_id = boot_id();
        let (mut audit, opened) = Audit::open(directory, limits.audit_bytes, &boot_id)?;
        // Who looks finds nothing open of an agent that is gone, also where nothing happens any more.
        if audit.standing().open().next().is_some()
            && let Err(error) = audit.begin(Boottime::now(), unix_ms())
        {
            tracing::warn!("what an agent before had under way is not settled yet: {error}");
        }
        let mut budget = Budget::new(limits.of_function, limits.of_node);
        // The agent may be part of what fails: a new one has no new budget.
        if audit.standing().boot_id() == boot_id {
            for (function, at) in audit.standing().done() {
                budget.spend(function, *at);
            }
        }
        let state = State {
            audit,
            budget,
            quiet: Budget::new(QUIET_LINES, u32::MAX),
            unwritten: BTreeMap::new(),
            pending: BTreeMap::new(),
            unsaid: Vec::new(),
        };
        let healer = Self(Arc::new(Shared {
            state: Mutex::new(state),
            directory: directory.into(),
            tell: Box::new(tell),
            node,
        }));
        Ok((healer, opened))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        let state = self.0.state.lock();
        state.unwrap_or_else(PoisonError::into_inner)
    }

    /// The memory that sandboxes of a version get: by its definition, or what it was raised to.
    #[must_use]
    pub fn memory_of(&self, function: &FunctionName, version: u32, terms: &Terms) -> u64 {
        let raised = self.state().audit.standing().raised(function, version);
        let raised = raised.map_or(terms.memory, |raised| raised.min(terms.memory_max));
        raised.max(terms.memory)
    }

    /// How a version of a function fails since the node has booted, as far as that is written down.
    #[must_use]
    pub fn failing(&self, function: &FunctionName, version: u32) -> Option<Failing> {
        let state = self.state();
        let standing = state.audit.standing();
        let is_since_boot = standing.boot_id() == boot_id();
        is_since_boot.then(|| standing.failing(function, version))?
    }

    /// Of functions that are not there any more nothing is known: one that gets the same number for
    /// its version is another one.
    pub fn keep(&self, is_there: impl Fn(&FunctionName, u32) -> bool) {
        let mut state = self.state();
        for (function, versions) in state.audit.standing().known() {
            if !versions.iter().any(|of| is_there(&function, *of)) {
                state.forget(&function);
            }
        }
    }

    /// Decides about a fault. Its pool is as `pool` says. When this returns the
    /// decision is on disk, or nothing is done.
    #[must_use]
    pub fn fault(&self, fault: Fault, terms: &Terms, pool: PoolNow) -> Verdict {
        let limit = self.memory_of(&fault.function, fault.version, terms);
        let mut state = self.state();
        let (of_function, of_node) = state.budget.left(&fault.function, fault.at);
        let known = Known {
            limit,
            pool,
            of_function,
            of_node,
            node: (self.0.node)(),
        };
        let decision = decide(&fault, terms, &known);
        say(&fault, terms.mode, &decision);
        let mut healing = healing(&fault, terms.mode, &decision);
        let is_acted_upon = terms.mode == Mode::Act && !decision.actions.is_empty();
        if !is_acted_upon && !state.is_worth_a_line(&fault) {
            return Verdict::default();
        }
        healing.unwritten = state.unwritten.remove(&fault.function).unwrap_or(0);
        let decided = Decided {
            mode: terms.mode,
            fault,
            decision,
            unwritten: healing.unwritten,
        };
        let resolved = (!is_acted_upon).then(|| nothing_done(&decided));
        let told = state.decide(decided, terms, pool.pause, healing, resolved);
        drop(state);
        match told {
            Ok(verdict) => verdict,
            Err(healing) => {
                (self.0.tell)(*healing);
                Verdict::default()
            }
        }
    }

    /// An instance of the function is being started: it takes the place of the one that was lost
    /// first.
    pub fn starting(&self, function: &FunctionName, instance: u64) {
        let mut state = self.state();
        let mut of_function = state
            .pending
            .values_mut()
            .filter(|pending| pending.function == *function);
        let _ = of_function.find_map(|pending| pending.take_place(instance));
    }

    /// It came up.
    pub fn started(&self, instance: u64, came_up: &CameUp) {
        self.resolve(
            |wait| wait.is_instance(instance),
            |outcome| {
                outcome.outcome = Resolved::Done;
                outcome.sandbox = Some(came_up.sandbox);
                outcome.memory_bytes = came_up.memory_bytes;
                came_up.claimed
            },
        );
    }

    /// There is no sandbox for it; another attempt follows, with another instance.
    pub fn no_sandbox(&self, instance: u64) {
        let mut state = self.state();
        for pending in state.pending.values_mut() {
            pending.give_place_back(instance);
        }
    }

    /// It did not.
    pub fn not_started(&self, instance: u64, why: &str) {
        self.resolve(
            |wait| wait.is_instance(instance),
            |outcome| {
                outcome.outcome = Resolved::Failed;
                outcome.why = shortened(why);
                None
            },
        );
    }

    /// What became of a request that was done again, if it was: none where it was answered, else why
    /// not.
    pub fn replayed(&self, request: RequestId, why_not: Option<&str>) {
        self.resolve(
            |wait| wait.is_request(request),
            |outcome| {
                outcome.outcome = if why_not.is_some() {
                    Resolved::Failed
                } else {
                    Resolved::Done
                };
                outcome.why = why_not.map(shortened).unwrap_or_default();
                None
            },
        );
    }

    /// Lines of the audit.
    pub fn lines(&self, wanted: &Wanted) -> io::Result<String> {
        Files::open(&self.0.directory)?.some(wanted)
    }

    /// A function was removed, and with it what is known of it.
    pub fn removed(&self, function: &FunctionName) {
        let of_function = |pending: &Pending| pending.function == *function;
        self.give_up(of_function, |_| true, Resolved::Obsolete, "it was removed");
        let mut state = self.state();
        state.unwritten.remove(function);
        if state.audit.standing().known().contains_key(function) {
            state.forget(function);
        }
    }

    /// Gives up what was not seen in time, and writes what could not be written.
    pub fn tick(&self, now: Boottime) {
        self.state().say_unsaid();
        let late = |wait: &Wait| wait.until <= now;
        let why = "nothing was seen of it in time";
        self.give_up(|_| true, late, Resolved::TimedOut, why);
        let beyond = self.state().pending.len().saturating_sub(MAX_PENDING);
        if beyond > 0 {
            let first: Vec<u64> = self.state().pending.keys().copied().take(beyond).collect();
            let oldest = |pending: &Pending| first.contains(&pending.line);
            let why = "too much is under way";
            self.give_up(oldest, |_| true, Resolved::TimedOut, why);
        }
    }

    fn give_up(
        &self,
        of: impl Fn(&Pending) -> bool,
        which: impl Fn(&Wait) -> bool,
        resolved: Resolved,
        why: &str,
    ) {
        let mut waits = 0;
        for pending in self.state().pending.values().filter(|one| of(one)) {
            waits += pending.waits.iter().filter(|wait| which(wait)).count();
        }
        for _ in 0..waits {
            self.resolve_of(&of, &which, |outcome| {
                outcome.outcome = resolved;
                why.clone_into(&mut outcome.why);
                None
            });
        }
    }

    fn resolve(
        &self,
        which: impl Fn(&Wait) -> bool,
        fill: impl FnOnce(&mut Outcome) -> Option<Boottime>,
    ) {
        self.resolve_of(|_| true, which, fill);
    }

    /// Writes the outcome of the first action that is waited for and that `which` names, and tells
    /// the healing when it was the last one. `fill` says what it is, and when a sandbox was claimed
    /// for it.
    fn resolve_of(
        &self,
        of: impl Fn(&Pending) -> bool,
        which: impl Fn(&Wait) -> bool,
        fill: impl FnOnce(&mut Outcome) -> Option<Boottime>,
    ) {
        let now = Boottime::now();
        let mut state = self.state();
        let found = state
            .pending
            .iter_mut()
            .filter(|(_, pending)| of(pending))
            .find_map(|(line, pending)| Some((*line, pending.take(&which)?)));
        let Some((line, wait)) = found else { return };
        let Some(pending) = state.pending.get_mut(&line) else {
            return;
        };
        let mut outcome = pending.outcome(&wait, now);
        let claimed = fill(&mut outcome);
        pending.note(&outcome, claimed, now);
        let is_last = pending.waits.is_empty();
        let chain = state.conclude(now, vec![Entry::Outcome(outcome)]);
        if let Some(pending) = state.pending.get_mut(&line) {
            pending.healing.chain = chain.or(pending.healing.chain.take());
        }
        let told = is_last.then(|| state.pending.remove(&line)).flatten();
        drop(state);
        if let Some(pending) = told {
            let Healing {
                function, reason, ..
            } = &pending.healing;
            for action in &pending.healing.actions {
                let HealAction {
                    action,
                    outcome,
                    why,
                    ..
                } = action;
                tracing::info!(function, action, outcome, why, "healed: {reason}");
            }
            (self.0.tell)(pending.healing);
        }
    }
}

impl fmt::Debug for Healer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Healer").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
