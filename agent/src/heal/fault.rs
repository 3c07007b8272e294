//! What happened to a sandbox.

use std::time::Duration;

use hearth_runtime::id::{FunctionName, RequestId, SandboxId};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::observe::oom::sentence::size;
use crate::time::Boottime;

/// What is done where a sandbox of a function fails.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Nothing: what would be done is logged.
    #[default]
    Observe,
    /// Nothing: it is decided as if it were done, within the same limits.
    DryRun,
    /// What was decided.
    Act,
}

impl Mode {
    /// The word for it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Observe => "observe",
            Self::DryRun => "dry-run",
            Self::Act => "act",
        }
    }
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "fault", rename_all = "snake_case")]
pub enum What {
    /// A process in it was killed for want of memory.
    OomKilled {
        /// What it might have, in bytes.
        limit_bytes: u64,
        /// The most that it had, where the kernel tells that.
        peak_bytes: Option<u64>,
    },
    /// The function's process has ended.
    Crashed {
        /// How.
        how: String,
    },
    /// It was at work when its time was over.
    Hung {
        /// The time that it had.
        after_ms: u64,
    },
    /// What looks after it in the sandbox does not answer, or makes no sense.
    Silent {
        /// What was seen.
        how: String,
    },
    /// It did not come up.
    NotStarted {
        /// Why.
        why: String,
    },
    /// The sandbox was ended by somebody else.
    Killed {
        /// How.
        how: String,
    },
}

impl What {
    /// The word for it.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::OomKilled { .. } => "oom_killed",
            Self::Crashed { .. } => "crashed",
            Self::Hung { .. } => "hung",
            Self::Silent { .. } => "silent",
            Self::NotStarted { .. } => "not_started",
            Self::Killed { .. } => "killed",
        }
    }

    /// It in plain words.
    #[must_use]
    pub fn sentence(&self) -> String {
        match self {
            Self::OomKilled {
                limit_bytes,
                peak_bytes,
            } => {
                let used = peak_bytes.map_or_else(|| "an unknown part".to_owned(), size);
                let limit = size(*limit_bytes);
                format!("it was killed for want of memory: it used {used} of {limit}")
            }
            Self::Crashed { how } => format!("it ended by itself ({how})"),
            Self::Hung { after_ms } => {
                let after = Duration::from_millis(*after_ms);
                format!("it was still at work when its {after:?} were over")
            }
            Self::Silent { how } => format!("its sandbox does not answer ({how})"),
            Self::NotStarted { why } => format!("it did not come up: {why}"),
            Self::Killed { how } => format!("its sandbox was ended by somebody else ({how})"),
        }
    }
}

/// What happened, to whom.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// What.
    #[serde(flatten)]
    pub what: What,
    /// The function.
    pub function: FunctionName,
    /// Its version.
    pub version: u32,
    /// The number of the instance in its pool.
    pub instance: u64,
    /// The sandbox that is lost, if there was one.
    pub lost: Option<Lost>,
    /// What it was at work on.
    pub request: Option<Interrupted>,
    /// How its function fails, this included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failing: Option<Failing>,
    /// When that was seen, by the clock that counts since boot.
    #[serde(rename = "at_boottime_ns")]
    pub at: Boottime,
}

/// A function that fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failing {
    /// So often in a row.
    pub failures: u32,
    /// Until when it is left alone for that.
    #[serde(rename = "until_boottime_ns")]
    pub until: Boottime,
}

/// A sandbox that is lost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lost {
    /// Which.
    pub sandbox: SandboxId,
    /// Its slot.
    pub slot: String,
    /// The cgroup that carries its memory, below the root of that hierarchy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<String>,
    /// When it was claimed, if this agent did.
    #[serde(
        default,
        rename = "claimed_boottime_ns",
        skip_serializing_if = "Option::is_none"
    )]
    pub claimed: Option<Boottime>,
}

/// A request that was interrupted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interrupted {
    /// Which.
    pub id: RequestId,
    /// The time that is left for it, in milliseconds.
    pub left_ms: u64,
    /// How often it was given to another sandbox before.
    pub replays: u32,
}
