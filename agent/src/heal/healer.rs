//! Decides, writes it down, and sees what comes of it.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hearth_runtime::id::{FunctionName, RequestId, SandboxId};

use super::audit::{Audit, AuditError, Decided, Entry, Files, Opened, Outcome, Resolved, Wanted};
use super::budget::{self, Budget};
use super::decide::{Action, Decision, Known, PoolNow, Terms, decide};
use super::fault::{Failing, Fault, Mode};
use super::memory::NodeMemory;
use super::pending::{Pending, Wait};
use crate::observe::healing::{HealAction, Healing, LostSandbox};
use crate::observe::identity::boot_id;
use crate::time::Boottime;

/// Lines of one function in the time of the budgets for decisions that lead to nothing; the rest is
/// counted.
const QUIET_LINES: u32 = 20;
/// Decisions under way, at most; the oldest are given up.
const MAX_PENDING: usize = 1024;
/// Outcomes that wait to be written; of those beyond it the next agent says that they are not known.
const MAX_UNSAID: usize = 1024;
/// How long a replacement may wait for memory or for a slot, beside its pause and its start.
const PATIENCE: Duration = Duration::from_secs(30);

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

struct State {
    audit: Audit,
    budget: Budget,
    /// Decisions that led to nothing, as actions are counted.
    quiet: Budget,
    unwritten: BTreeMap<FunctionName, u64>,
    /// By the line of the decision.
    pending: BTreeMap<u64, Pending>,
    /// Outcomes that could not be written yet.
    unsaid: Vec<Entry>,
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

impl State {
    fn append(
        &mut self,
        at: Boottime,
        entries: &[Entry],
    ) -> Result<(Vec<u64>, String), AuditError> {
        let (lines, chain) = self.audit.append(at, unix_ms(), entries)?;
        Ok((lines, chain.to_string()))
    }

    /// Writes outcomes, now or as soon as that can be done; the chain up to them where it was now.
    fn conclude(&mut self, at: Boottime, outcomes: Vec<Entry>) -> Option<String> {
        match self.append(at, &outcomes) {
            Ok((_, chain)) => Some(chain),
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

    fn say_unsaid(&mut self) {
        let unsaid = std::mem::take(&mut self.unsaid);
        if !unsaid.is_empty() && self.append(Boottime::now(), &unsaid).is_err() {
            self.unsaid = unsaid;
        }
    }

    /// A function is gone, and so is what is known of it.
    fn forget(&mut self, function: &FunctionName) {
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
    fn is_worth_a_line(&mut self, fault: &Fault) -> bool {
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
    fn decide(
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

fn unix_ms() -> u64 {
    let unix = SystemTime::now().duration_since(UNIX_EPOCH);
    u64::try_from(unix.unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
}

/// What comes of a decision that is not acted upon.
fn nothing_done(decided: &Decided) -> Resolved {
    match decided.mode {
        _ if decided.decision.actions.is_empty() => Resolved::Nothing,
        Mode::Observe => Resolved::Would,
        Mode::DryRun | Mode::Act => Resolved::DryRun,
    }
}

/// All that was decided came to the same.
fn resolve_all(healing: &mut Healing, outcome: &'static str, is_bad: bool, why: &str) {
    for action in &mut healing.actions {
        action.outcome = outcome;
        action.is_bad = is_bad;
        why.clone_into(&mut action.why);
    }
}

fn healing(fault: &Fault, mode: Mode, decision: &Decision) -> Healing {
    let actions = decision.actions.iter().map(|action| HealAction {
        action: action.word().to_owned(),
        ..HealAction::default()
    });
    let mut actions: Vec<HealAction> = actions.collect();
    if actions.is_empty() {
        actions.push(HealAction {
            action: "none".to_owned(),
            ..HealAction::default()
        });
    }
    let refused = decision.refused.iter();
    Healing {
        function: fault.function.to_string(),
        version: fault.version,
        mode: mode.word(),
        fault: fault.what.word(),
        at: fault.at,
        ended: Boottime::now(),
        reason: decision.reason.clone(),
        refused: refused
            .map(|refused| format!("{}: {}", refused.action, refused.why))
            .collect(),
        actions,
        lost: fault.lost.as_ref().map(|lost| LostSandbox {
            sandbox: lost.sandbox.to_string(),
            cgroup: lost.cgroup.clone(),
            claimed: lost.claimed,
        }),
        request: fault.request.map(|request| request.id.to_string()),
        ..Healing::default()
    }
}

/// For whoever reads the agent's own log.
fn say(fault: &Fault, mode: Mode, decision: &Decision) {
    let function = &fault.function;
    let what = match mode {
        _ if decision.actions.is_empty() => "nothing is done".to_owned(),
        Mode::Observe => format!("heal = \"act\" would {}", decision.in_words()),
        Mode::DryRun => format!("but for the dry run: {}", decision.in_words()),
        Mode::Act => decision.in_words(),
    };
    let reason = &decision.reason;
    let refused = decision.refused.iter();
    let refused: Vec<String> = refused
        .map(|refused| format!("no {}: {}", refused.action, refused.why))
        .collect();
    let refused = refused.join("; ");
    tracing::warn!("function {function}: {reason}: {what}; {refused}");
}

/// As much of it as a line should have.
fn shortened(text: &str) -> String {
    text.chars().take(500).collect()
}

#[cfg(test)]
mod tests;
