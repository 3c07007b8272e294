//! What was done to the node, for what follows from it.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// A sandbox of which a process got a signal.
#[derive(Debug)]
pub(crate) struct Signalled {
    /// Which.
    pub(crate) sandbox: String,
    /// Of which function.
    pub(crate) function: String,
    /// When.
    pub(crate) at: Instant,
}

/// What happened when, for what follows from it.
#[derive(Default)]
pub(crate) struct Happened {
    /// Sandboxes that were killed: nobody asked them for anything that would explain their end.
    pub(crate) killed: Vec<Signalled>,
    /// Times when the agent was gone, or could not write anything down.
    pub(crate) blind: Vec<(Instant, Instant)>,
    /// Sandboxes of which a process was stopped.
    pub(crate) stopped: Vec<Signalled>,
    /// Functions that got a new version: what the old one has goes.
    pub(crate) deployed: Vec<(String, Instant)>,
    /// Memory limits that sandboxes had, by function and version.
    pub(crate) limits: BTreeSet<(String, u64, u64)>,
}

impl Happened {
    /// Whether a process of this sandbox was stopped.
    pub(crate) fn is_stopped(&self, sandbox: &str) -> bool {
        self.stopped
            .iter()
            .any(|stopped| stopped.sandbox == sandbox)
    }

    /// Whether a function got a new version between these.
    pub(crate) fn was_deployed(&self, function: &str, from: Instant, until: Instant) -> bool {
        let mut deployed = self.deployed.iter();
        deployed.any(|(name, at)| name == function && (from..=until).contains(at))
    }

    /// How long the agent was there, and could write things down, between these.
    pub(crate) fn seen(&self, from: Instant, until: Instant) -> Duration {
        let blind = self.blind.iter().map(|(begin, end)| {
            let (begin, end) = (*begin.max(&from), *end.min(&until));
            end.saturating_duration_since(begin)
        });
        (until - from).saturating_sub(blind.sum())
    }

    /// Whether the agent may not have known, or not written down, what happened between these.
    pub(crate) fn was_blind(&self, from: Instant, until: Instant) -> bool {
        let mut blind = self.blind.iter();
        blind.any(|(begin, end)| *begin <= until && from <= *end)
    }
}
