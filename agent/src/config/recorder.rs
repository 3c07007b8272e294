//! `[oom.recorder]`: what is recorded before a kill.

use std::num::NonZeroUsize;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

use super::Share;
use crate::observe::oom::recorder::Settings;

/// Least share of a limit that counts as near: below it, armed cgroups would be the rule.
const LEAST: f64 = 0.3;
/// Most cgroups: each takes two open files.
const MOST: usize = 16_384;

/// `[oom.recorder]`: what is recorded before a kill.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Recorder {
    /// Whether anything is.
    pub enabled: bool,
    /// Share of its limit from which on a cgroup is recorded.
    #[serde(deserialize_with = "near")]
    pub near: Share,
    /// Cgroups with a limit that are watched.
    #[serde(deserialize_with = "bounded")]
    pub max_cgroups: NonZeroUsize,
}

impl Default for Recorder {
    fn default() -> Self {
        Self {
            enabled: true,
            near: Share(0.8),
            max_cgroups: NonZeroUsize::new(1024).unwrap_or(NonZeroUsize::MIN),
        }
    }
}

impl Recorder {
    /// As the recorder takes them.
    #[must_use]
    pub const fn settings(&self) -> Settings {
        Settings {
            near: self.near.0,
            max_cgroups: self.max_cgroups.get(),
        }
    }
}

fn near<'de, D: Deserializer<'de>>(from: D) -> Result<Share, D::Error> {
    let share = Share::deserialize(from)?;
    if (LEAST..1.0).contains(&share.0) {
        return Ok(share);
    }
    Err(D::Error::custom(format!(
        "{} is not near a limit; write a share from {LEAST} on and below 1.0, such as 0.8",
        share.0
    )))
}

fn bounded<'de, D: Deserializer<'de>>(from: D) -> Result<NonZeroUsize, D::Error> {
    let number = NonZeroUsize::deserialize(from)?;
    if number.get() <= MOST {
        return Ok(number);
    }
    Err(D::Error::custom(format!(
        "{number} cgroups are too many; write a number up to {MOST}"
    )))
}
