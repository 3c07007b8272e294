//! Each instance is kept for the same time, as most platforms do.

use std::time::Duration;

use super::super::Moment;
use super::{Plan, Policy, Seen};

/// Each instance is kept for the same time.
#[derive(Clone, Copy, Debug)]
pub struct Fixed {
    keep_alive: Duration,
}

impl Fixed {
    /// For so long.
    #[must_use]
    pub const fn new(keep_alive: Duration) -> Self {
        Self { keep_alive }
    }
}

impl Policy for Fixed {
    fn arrived(&mut self, _: Moment) {}

    fn served(&mut self, _: Moment, _: Duration) {}

    fn measured(&mut self, _: Moment, _: Duration) {}

    fn plan(&mut self, _: Seen) -> Plan {
        Plan {
            target: 0,
            keep_alive: self.keep_alive,
            again: None,
        }
    }
}
