//! What follows from all lines: limits that are raised, and actions that are under way.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use hearth_runtime::id::FunctionName;

use super::entry::{Begin, Entry, Fails, Line, Open, Raised};
use crate::heal::fault::{Failing, Mode};
use crate::time::Boottime;

/// Functions whose limits are raised, at most; one that is named in the lines but not in here has
/// what its definition says.
const MAX_RAISED: usize = 1000;
/// Functions that fail, at most; who is left alone for longest stays.
const MAX_FAILING: usize = 1000;
/// Actions under way, at most.
const MAX_OPEN: usize = 4096;
/// Decisions that a budget may still count, at most; the newest.
const MAX_DONE: usize = 4096;

/// What follows from all lines.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    raised: BTreeMap<FunctionName, (u32, u64)>,
    failing: BTreeMap<FunctionName, (u32, Failing)>,
    open: BTreeSet<Open>,
    boot_id: String,
    /// What was done since that boot, and when.
    done: VecDeque<(FunctionName, Boottime)>,
}

impl Standing {
    /// What follows from one more line.
    pub fn apply(&mut self, line: &Line) {
        match &line.entry {
            Entry::Begin(begin) => self.begin(begin),
            Entry::Decision(decided) => {
                let function = &decided.fault.function;
                let actions = &decided.decision.actions;
                if let Some(failing) = decided.fault.failing {
                    self.fails(function, decided.fault.version, failing);
                }
                if decided.mode != Mode::Observe && !actions.is_empty() {
                    if self.done.len() >= MAX_DONE {
                        self.done.pop_front();
                    }
                    self.done.push_back((function.clone(), line.at));
                }
                if decided.mode != Mode::Act {
                    return;
                }
                if let Some(bytes) = decided.decision.raised()
                    && (self.raised.len() < MAX_RAISED || self.raised.contains_key(function))
                    // One of an older version may still be at work.
                    && self.raised.get(function).is_none_or(|(of, _)| *of <= decided.fault.version)
                {
                    let of = (decided.fault.version, bytes);
                    self.raised.insert(function.clone(), of);
                }
                self.open.extend(actions.iter().map(|action| Open {
                    of: line.seq,
                    action: action.word().to_owned(),
                    function: function.clone(),
                }));
                while self.open.len() > MAX_OPEN {
                    self.open.pop_first();
                }
            }
            Entry::Outcome(outcome) => {
                self.open.remove(&Open {
                    of: outcome.of,
                    action: outcome.action.clone(),
                    function: outcome.function.clone(),
                });
            }
            Entry::Removed { function } => self.forget(function),
        }
    }

    fn fails(&mut self, function: &FunctionName, version: u32, failing: Failing) {
        self.failing.insert(function.clone(), (version, failing));
        if self.failing.len() > MAX_FAILING {
            let first = self.failing.iter().min_by_key(|(_, (_, one))| one.until);
            if let Some(function) = first.map(|(function, _)| function.clone()) {
                self.failing.remove(&function);
            }
        }
    }

    /// A function is gone, and so is what is known of it.
    pub(super) fn forget(&mut self, function: &FunctionName) {
        self.raised.remove(function);
        self.failing.remove(function);
    }

    /// It says all that is needed of what stands before.
    fn begin(&mut self, begin: &Begin) {
        let raised = begin.raised.iter().take(MAX_RAISED);
        self.raised = raised
            .map(|one| (one.function.clone(), (one.version, one.bytes)))
            .collect();
        let failing = begin.failing.iter().take(MAX_FAILING);
        self.failing = failing
            .map(|one| (one.function.clone(), (one.version, one.failing)))
            .collect();
        self.open = begin.open.iter().take(MAX_OPEN).cloned().collect();
        if self.boot_id != begin.boot_id {
            self.boot_id.clone_from(&begin.boot_id);
            self.done.clear();
        }
    }

    /// The memory that a version of a function was given last.
    #[must_use]
    pub fn raised(&self, function: &FunctionName, version: u32) -> Option<u64> {
        let (of, bytes) = self.raised.get(function)?;
        (*of == version).then_some(*bytes)
    }

    /// All of them.
    #[must_use]
    pub fn all_raised(&self) -> Vec<Raised> {
        let raised = self.raised.iter();
        raised
            .map(|(function, (version, bytes))| Raised {
                function: function.clone(),
                version: *version,
                bytes: *bytes,
            })
            .collect()
    }

    /// How a version of a function failed last, since the boot that the last [`Begin`] names.
    #[must_use]
    pub fn failing(&self, function: &FunctionName, version: u32) -> Option<Failing> {
        let (of, failing) = self.failing.get(function)?;
        (*of == version).then_some(*failing)
    }

    /// All that fail.
    #[must_use]
    pub fn all_failing(&self) -> Vec<Fails> {
        let failing = self.failing.iter();
        failing
            .map(|(function, (version, failing))| Fails {
                function: function.clone(),
                version: *version,
                failing: *failing,
            })
            .collect()
    }

    /// Functions of which something is known, and of which versions.
    pub(in crate::heal) fn known(&self) -> BTreeMap<FunctionName, Vec<u32>> {
        let raised = self
            .raised
            .iter()
            .map(|(name, (version, _))| (name, version));
        let failing = self.failing.iter();
        let failing = failing.map(|(name, (version, _))| (name, version));
        let mut known: BTreeMap<FunctionName, Vec<u32>> = BTreeMap::new();
        for (function, version) in raised.chain(failing) {
            known.entry(function.clone()).or_default().push(*version);
        }
        known
    }

    /// Actions whose outcome is not known.
    pub fn open(&self) -> impl Iterator<Item = &Open> {
        self.open.iter()
    }

    /// What was done since the boot that the last [`Begin`] names, and when.
    pub(in crate::heal) fn done(&self) -> impl Iterator<Item = &(FunctionName, Boottime)> {
        self.done.iter()
    }

    /// That boot.
    #[must_use]
    pub fn boot_id(&self) -> &str {
        &self.boot_id
    }
}
