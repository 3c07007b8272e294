//! How long each step of a start takes.

use std::time::Instant;

/// Microseconds since the beginning, by step.
#[derive(Clone, Debug)]
pub(super) struct Steps {
    begun: Instant,
    done: Vec<(&'static str, u64)>,
}

impl Steps {
    pub(super) fn begin() -> Self {
        Self {
            begun: Instant::now(),
            done: Vec::with_capacity(12),
        }
    }

    pub(super) fn done(&mut self, step: &'static str) {
        let passed = self.begun.elapsed().as_micros();
        self.done
            .push((step, passed.try_into().unwrap_or(u64::MAX)));
    }

    pub(super) fn told(self) -> Vec<(&'static str, u64)> {
        self.done
    }
}
