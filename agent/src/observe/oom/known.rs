//! A value, or why there is none: no field of a capture is ever just missing.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A value, or why there is none. In JSON `{"value": ...}` or
/// `{"absent": {"reason": ..., "detail": ...}}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Known<T> {
    /// It is known.
    Value(T),
    /// It is not.
    Absent(Absent),
}

/// Why there is no value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Absent {
    /// One word of a fixed list, for machines.
    pub reason: Reason,
    /// A sentence for people; may be empty.
    #[serde(default)]
    pub detail: String,
}

/// The reasons for which a value can be missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// A setting says so.
    Off,
    /// This kernel does not have it, or not where hearth may look.
    Kernel,
    /// Only a running task can be asked for it, and this one was not running.
    NotRunning,
    /// This version of cgroups does not have it.
    CgroupVersion,
    /// The recorder was not looking: the cgroup was not near its limit long enough.
    NotArmed,
    /// The kernel made no record of it in time.
    NotTold,
    /// A record of it was lost on its way; the ledger counts it.
    Lost,
    /// What would have to be read is gone.
    Gone,
    /// Reading it failed.
    Unreadable,
    /// There is more than is kept.
    Full,
    /// Nothing of the kind applies to this kill.
    NotApplicable,
}

impl Reason {
    /// The word used in JSON and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Kernel => "kernel",
            Self::NotRunning => "not_running",
            Self::CgroupVersion => "cgroup_version",
            Self::NotArmed => "not_armed",
            Self::NotTold => "not_told",
            Self::Lost => "lost",
            Self::Gone => "gone",
            Self::Unreadable => "unreadable",
            Self::Full => "full",
            Self::NotApplicable => "not_applicable",
        }
    }

    /// Whether a value that is missing for this reason could have been had: what is off, or not
    /// to be had on this kernel, does not make a capture incomplete.
    #[must_use]
    pub const fn is_loss(self) -> bool {
        matches!(
            self,
            Self::NotTold | Self::Lost | Self::Unreadable | Self::Full
        )
    }
}

impl Absent {
    /// Says why.
    #[must_use]
    pub fn new(reason: Reason, detail: impl Into<String>) -> Self {
        Self {
            reason,
            detail: detail.into(),
        }
    }
}

impl fmt::Display for Absent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.detail.is_empty() {
            f.write_str(self.reason.name())
        } else {
            write!(f, "{} ({})", self.detail, self.reason.name())
        }
    }
}

impl<T> Known<T> {
    /// Says why there is none.
    #[must_use]
    pub fn absent(reason: Reason, detail: impl Into<String>) -> Self {
        Self::Absent(Absent::new(reason, detail))
    }

    /// The value, if there is one.
    #[must_use]
    pub const fn value(&self) -> Option<&T> {
        match self {
            Self::Value(value) => Some(value),
            Self::Absent(_) => None,
        }
    }

    /// Why there is none, if there is none.
    #[must_use]
    pub const fn why(&self) -> Option<&Absent> {
        match self {
            Self::Value(_) => None,
            Self::Absent(absent) => Some(absent),
        }
    }

    /// With the value turned into another.
    pub fn map<U>(self, with: impl FnOnce(T) -> U) -> Known<U> {
        match self {
            Self::Value(value) => Known::Value(with(value)),
            Self::Absent(absent) => Known::Absent(absent),
        }
    }
}

impl<T> From<Result<T, Absent>> for Known<T> {
    fn from(result: Result<T, Absent>) -> Self {
        match result {
            Ok(value) => Self::Value(value),
            Err(absent) => Self::Absent(absent),
        }
    }
}
