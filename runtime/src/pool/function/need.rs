//! How many instances a function needs whatever its policy says, and which it can spare where memory
//! is short.

use std::time::Duration;

use super::{Pool, count};
use crate::pool::Moment;
use crate::pool::greedy_dual::Worth;
use crate::pool::input::{Action, Retired};

/// When what there was no memory for is tried again.
const MEMORY_AGAIN: Duration = Duration::from_secs(1);

impl Pool {
    /// Those that are to be started, so that who waits is served and what was promised is there.
    pub(super) fn missing(&self, held: bool, is_unproven: bool) -> u32 {
        let waiting = count(self.waiting.len());
        let asked = self.at_work().saturating_add(waiting);
        let needed = asked.max(self.promised()).max(self.restore);
        let missing = needed.saturating_sub(self.current());
        let at_once = match (held, is_unproven) {
            (true, _) => 0,
            (false, true) => u32::from(!self.is_probed()),
            (false, false) => return missing,
        };
        // Where nobody is held back each request is an attempt.
        let tries = if self.settings.hold {
            0
        } else {
            waiting.saturating_sub(count(self.starting.len()))
        };
        missing.min(at_once).max(tries)
    }

    /// Whether what is needed is not started for want of memory.
    pub(in crate::pool) const fn is_denied(&self) -> bool {
        self.denied.is_some()
    }

    /// Some memory may be free again.
    pub(in crate::pool) const fn freed(&mut self) {
        self.denied = None;
    }

    /// There is no memory for one; `must` says whether one is needed. Where it is not, who comes
    /// next is tried for at once, as others may go for that.
    pub(in crate::pool) fn denied(&mut self, now: Moment, must: bool) {
        let again = now.after(MEMORY_AGAIN);
        *(if must {
            &mut self.denied
        } else {
            &mut self.spared
        }) = Some(again);
        self.next = Some(self.next.map_or(again, |next| next.min(again)));
    }

    /// Those that run what is deployed.
    pub(super) fn current(&self) -> u32 {
        self.instances() - count(self.old.len())
    }

    /// Those of them that are at work.
    fn at_work(&self) -> u32 {
        count(self.busy.difference(&self.old).count())
    }

    /// Whether there is one that began after the last failure.
    fn is_probed(&self) -> bool {
        let ready = self.ready.iter().map(|ready| &ready.instance);
        let mut all = ready.chain(&self.starting).chain(&self.busy);
        all.any(|instance| self.back_off.is_anew(*instance))
    }

    /// Idle ones that may go for somebody else.
    pub(in crate::pool) fn evictable(&self) -> u32 {
        self.current()
            .saturating_sub(self.promised())
            .min(count(self.ready.len()))
    }

    /// What the cheapest idle one is worth that may go.
    pub(in crate::pool) fn cheapest(&self) -> Option<Worth> {
        if self.evictable() == 0 {
            return None;
        }
        let worths = self.ready.iter().map(|ready| ready.worth);
        worths.min_by(|a, b| a.partial_cmp(b).unwrap_or(std::cmp::Ordering::Equal))
    }

    /// The cheapest goes.
    pub(in crate::pool) fn evict(&mut self, worth: Worth, out: &mut Vec<Action>) {
        let Some(index) = self.ready.iter().position(|ready| ready.worth == worth) else {
            return;
        };
        if let Some(ready) = self.ready.remove(index) {
            self.restore = self.restore.saturating_sub(1);
            self.retire(ready.instance, Retired::Evicted, out);
        }
    }

    /// Those that there are whatever the policy says, and whoever else needs memory.
    pub(super) fn promised(&self) -> u32 {
        let reserved = match self.settings.reserved {
            0 => 0,
            reserved => reserved.saturating_add(self.at_work()),
        };
        let promised = self.settings.min.max(self.scheduled).max(reserved);
        promised.min(self.settings.max)
    }
}
