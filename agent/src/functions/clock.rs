//! The time that pools and schedules go by.

use std::time::SystemTime;

use hearth_runtime::pool::Moment;

use crate::time::Boottime;

/// Tells the time.
pub trait Clock: Send + Sync {
    /// The time since the node booted, the time that it slept included.
    fn now(&self) -> Moment;

    /// The time of day.
    fn wall(&self) -> SystemTime;
}

/// The node's clocks.
pub(super) struct NodeClock;

impl Clock for NodeClock {
    fn now(&self) -> Moment {
        Moment(std::time::Duration::from_nanos(Boottime::now().0))
    }

    fn wall(&self) -> SystemTime {
        SystemTime::now()
    }
}
