//! How the pool of one function is to be.

use serde::{Deserialize, Serialize};

use super::policy::Choice;

/// How the pool of one function is to be.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Instances that there are always; they are not evicted.
    pub min: u32,
    /// Instances that there are at most.
    pub max: u32,
    /// Instances that wait for work beside those that are at work, as far as `max` allows; they are
    /// not evicted.
    pub reserved: u32,
    /// Requests that wait at most, beside those that an instance starts for.
    pub queue: u32,
    /// Whether requests wait, too, while a function that keeps failing is left alone. Else each of
    /// them is an attempt.
    pub hold: bool,
    /// Who says how many there should be between `min` and `max`.
    pub policy: Choice,
    /// Memory that an instance takes, in bytes, as long as nothing was [weighed](super::Input::Weighed).
    pub memory_bytes: u64,
}
