//! How many instances there should be: one file a rule, all behind one trait.
//!
//! - [`Fixed`]: each is kept for the same time.

mod fixed;

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Moment;
pub use fixed::Fixed;

/// Says how many instances of one function there should be. It has no clock and draws nothing: the
/// same history gives the same plan.
pub trait Policy: Send {
    /// A request came in.
    fn arrived(&mut self, now: Moment);

    /// An instance is done with one, which took so long.
    fn served(&mut self, now: Moment, work: Duration);

    /// A start was measured, from the claim until it was ready.
    fn measured(&mut self, now: Moment, start: Duration);

    /// What there should be. It is asked after everything that happens, and when it wanted to be.
    fn plan(&mut self, seen: Seen) -> Plan;
}

/// What is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// When.
    pub now: Moment,
    /// Requests that are at work, or wait.
    pub demand: u32,
    /// Instances that wait for work.
    pub ready: u32,
    /// Instances that start.
    pub starting: u32,
    /// Memory that one of them takes, in bytes.
    pub memory_bytes: u64,
}

/// What should be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Instances at least: at work, idle and starting ones together. None is retired below this.
    pub target: u32,
    /// Of those above it, one is retired when it has been idle for so long.
    pub keep_alive: Duration,
    /// When the plan may be another one, even if nothing happens until then.
    pub again: Option<Moment>,
}

/// Which policy, as a person writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Choice {
    /// [`Fixed`], with its keep-alive.
    Fixed(Duration),
}

impl Choice {
    /// A new one of them.
    #[must_use]
    pub fn build(self) -> Box<dyn Policy> {
        match self {
            Self::Fixed(keep_alive) => Box::new(Fixed::new(keep_alive)),
        }
    }
}

impl Default for Choice {
    fn default() -> Self {
        Self::Fixed(Duration::from_mins(10))
    }
}

/// No policy is called so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("policy `{0}`: there is `fixed:SECONDS`, such as fixed:600")]
pub struct UnknownPolicy(String);

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(keep_alive) => write!(f, "fixed:{}", keep_alive.as_secs()),
        }
    }
}

impl FromStr for Choice {
    type Err = UnknownPolicy;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let unknown = || UnknownPolicy(text.chars().take(60).collect());
        let (name, argument) = text.split_once(':').unwrap_or((text, ""));
        match (name, argument) {
            ("fixed", "") => Ok(Self::Fixed(Duration::from_mins(10))),
            ("fixed", seconds) => seconds
                .parse()
                .map(|seconds| Self::Fixed(Duration::from_secs(seconds)))
                .map_err(|_| unknown()),
            _ => Err(unknown()),
        }
    }
}

impl From<Choice> for String {
    fn from(choice: Choice) -> Self {
        choice.to_string()
    }
}

impl TryFrom<String> for Choice {
    type Error = UnknownPolicy;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}
