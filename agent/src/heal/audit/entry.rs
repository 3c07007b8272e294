//! What a line says.

use hearth_runtime::id::{FunctionName, RequestId, SandboxId};
use serde::{Deserialize, Serialize};

use crate::heal::decide::Decision;
use crate::heal::fault::{Failing, Fault, Mode};
use crate::time::Boottime;

/// One line, but for its link in the chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// Counts lines, from 1, over all files.
    pub seq: u64,
    /// When it was written, by the clock on the wall: for people.
    pub unix_ms: u64,
    /// When, since the boot that the last [`Begin`] names.
    #[serde(rename = "boottime_ns")]
    pub at: Boottime,
    /// What it says.
    #[serde(flatten)]
    pub entry: Entry,
}

/// What a line says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "entry", rename_all = "snake_case")]
pub enum Entry {
    /// An agent begins, or a file: what is known at that point.
    Begin(Begin),
    /// What was decided, before anything of it is done.
    Decision(Box<Decided>),
    /// What came of one action of it.
    Outcome(Outcome),
    /// A function was removed: what was raised for it is forgotten.
    Removed {
        /// Which.
        function: FunctionName,
    },
}

impl Entry {
    /// Which function it is about, if about one.
    #[must_use]
    pub fn function(&self) -> Option<&FunctionName> {
        match self {
            Self::Begin(_) => None,
            Self::Decision(decided) => Some(&decided.fault.function),
            Self::Outcome(outcome) => Some(&outcome.function),
            Self::Removed { function } => Some(function),
        }
    }
}

/// All that is needed of what stands before this line.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begin {
    /// Version of the format.
    pub version: u32,
    /// The chain of the line before: zeros before the first.
    pub after: String,
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot_id: String,
    /// Limits that are raised.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub raised: Vec<Raised>,
    /// Functions that fail.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failing: Vec<Fails>,
    /// Actions whose outcome is not known yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub open: Vec<Open>,
    /// What was found wrong with what stands before, in plain words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub found: Vec<String>,
    /// Bytes of a last line without an end, which were put aside: who wrote it was ended.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub torn_bytes: u64,
}

/// A limit that is raised.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Raised {
    /// Of this function,
    pub function: FunctionName,
    /// of this version and no other.
    pub version: u32,
    /// To so much.
    pub bytes: u64,
}

/// A function that fails.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fails {
    /// This one,
    pub function: FunctionName,
    /// of this version and no other.
    pub version: u32,
    /// How.
    #[serde(flatten)]
    pub failing: Failing,
}

/// An action whose outcome is not known yet.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Open {
    /// The line of the decision.
    pub of: u64,
    /// The word for it.
    pub action: String,
    /// For which function.
    pub function: FunctionName,
}

/// A decision with what it was made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decided {
    /// Whether it is acted upon.
    pub mode: Mode,
    /// What happened.
    #[serde(flatten)]
    pub fault: Fault,
    /// What is to be done.
    #[serde(flatten)]
    pub decision: Decision,
    /// Faults of this function before this one that led to nothing and were only counted: there
    /// were too many.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub unwritten: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks like this")]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// What came of one action.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// The line of the decision.
    pub of: u64,
    /// For which function.
    pub function: FunctionName,
    /// The word for the action; `none` where there was nothing to do.
    pub action: String,
    /// What.
    pub outcome: Resolved,
    /// The sandbox that took the place of the one that was lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<SandboxId>,
    /// The memory that it may have, as it was read back from its cgroup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// The request that was done again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<RequestId>,
    /// From the fault to this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub took_ms: Option<u64>,
    /// Why it is not better than that.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub why: String,
}

/// How an action ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resolved {
    /// The function says that nothing is to be done: it would have been.
    Would,
    /// It was decided, within the limits of what is done, and not done.
    DryRun,
    /// Nothing was to be done.
    Nothing,
    /// It was done, and the function is there again, or has answered.
    Done,
    /// It was tried, and did not help.
    Failed,
    /// Nothing was seen of it in time.
    TimedOut,
    /// It was not needed any more.
    Obsolete,
    /// The agent ended before it was seen.
    Unknown,
}

impl Resolved {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Would,
        Self::DryRun,
        Self::Nothing,
        Self::Done,
        Self::Failed,
        Self::TimedOut,
        Self::Obsolete,
        Self::Unknown,
    ];

    /// The word for it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Would => "would",
            Self::DryRun => "dry_run",
            Self::Nothing => "nothing",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::TimedOut => "timed_out",
            Self::Obsolete => "obsolete",
            Self::Unknown => "unknown",
        }
    }
}
