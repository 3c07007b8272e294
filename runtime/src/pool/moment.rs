//! A point of time.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A point of time on a clock that the caller chose and that never goes back: the time since that
/// clock's zero. In text it is nanoseconds.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(into = "u64", from = "u64")]
pub struct Moment(pub Duration);

impl Moment {
    /// The time from `earlier` until this; none where that is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }

    /// This much later.
    #[must_use]
    pub const fn after(self, time: Duration) -> Self {
        Self(self.0.saturating_add(time))
    }
}

impl From<Moment> for u64 {
    fn from(moment: Moment) -> Self {
        // 584 years of them.
        Self::try_from(moment.0.as_nanos()).unwrap_or(Self::MAX)
    }
}

impl From<u64> for Moment {
    fn from(nanoseconds: u64) -> Self {
        Self(Duration::from_nanos(nanoseconds))
    }
}
