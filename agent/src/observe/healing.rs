//! A fault of a function's sandbox, what was decided, and what came of it: as it is told when all of
//! that is known.

use crate::time::Boottime;

/// The words for what can be done.
pub const ACTIONS: [&str; 3] = ["replace", "raise", "replay"];
/// The words for what can come of it.
pub const OUTCOMES: [&str; 9] = [
    "would",
    "dry_run",
    "nothing",
    "done",
    "failed",
    "timed_out",
    "obsolete",
    "unknown",
    // Of a decision that could not be written down: nothing was done.
    "not_written",
];
/// Those that somebody should look at.
pub const BAD: [&str; 3] = ["failed", "timed_out", "not_written"];

/// A fault and what came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Healing {
    /// The number of the decision's line in the audit; none where it is not in there.
    pub line: Option<u64>,
    /// The chain of the audit up to the last line that was written of this.
    pub chain: Option<String>,
    /// The function.
    pub function: String,
    /// Its version.
    pub version: u32,
    /// Whether the decision is acted upon: `observe`, `dry-run` or `act`.
    pub mode: &'static str,
    /// The word for what happened.
    pub fault: &'static str,
    /// When that was seen.
    pub at: Boottime,
    /// When the last of the outcomes was.
    pub ended: Boottime,
    /// What happened, and what follows, in plain words.
    pub reason: String,
    /// What is not done, and why.
    pub refused: Vec<String>,
    /// What was done, or would be; where it is nothing, that.
    pub actions: Vec<HealAction>,
    /// The sandbox that was lost.
    pub lost: Option<LostSandbox>,
    /// The request that it was at work on.
    pub request: Option<String>,
    /// Faults of the function before this one that were only counted.
    pub unwritten: u64,
}

/// One action.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HealAction {
    /// The word for it.
    pub action: String,
    /// What came of it.
    pub outcome: &'static str,
    /// Whether somebody should look at that.
    pub is_bad: bool,
    /// The sandbox that took the place of the lost one.
    pub sandbox: Option<String>,
    /// When that one was claimed: what its cold start is known by.
    pub claimed: Option<Boottime>,
    /// The memory that it may have, as that was read back from its cgroup.
    pub memory_bytes: Option<u64>,
    /// Why it is not better.
    pub why: String,
}

/// A sandbox that was lost.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LostSandbox {
    /// Its id.
    pub sandbox: String,
    /// The cgroup that carried its memory.
    pub cgroup: Option<String>,
    /// When it was claimed, if this agent did.
    pub claimed: Option<Boottime>,
}
