//! The daemon's part for the `cgroup_lock` signal: from counts and long waits to what is told.

use std::time::{Duration, Instant};

use hearth_abi::LockWait;

use crate::export::{Export, LongWait};
use crate::kernel::probes::{Probes, ProbesError};
use crate::observe::cgroup_lock::{Wait, WaitsByCgroup};
use crate::observe::cold_start::Tracker;
use crate::time::{Boottime, Nanos};

/// How often the counts are read: a walk of a map.
const READ: Duration = Duration::from_secs(5);
/// Cgroups whose waits are told by name.
const CGROUPS: usize = 50;
/// Waits from which on there is a log record.
const LOGGED: Nanos = Nanos(10_000_000);
/// Such records at once, and how long until there may be one more.
const BURST: u32 = 10;
const REFILL: Duration = Duration::from_secs(6);

/// What the daemon keeps of the signal.
#[derive(Debug)]
pub(super) struct Locks {
    waits: WaitsByCgroup,
    read: Option<Instant>,
    allowance: Allowance,
    long: Vec<Wait>,
}

impl Locks {
    /// Knows nothing yet.
    pub(super) fn new() -> Self {
        Self {
            waits: WaitsByCgroup::new(CGROUPS),
            read: None,
            allowance: Allowance::full(Instant::now()),
            long: Vec::new(),
        }
    }

    /// Takes in the record of a long wait.
    pub(super) fn accept(&mut self, record: &LockWait) {
        let Some(wait) = Wait::of(record).filter(|wait| wait.length() >= LOGGED) else {
            return;
        };
        // Of those that come together the longest are told.
        let at = self
            .long
            .partition_point(|other| other.length() >= wait.length());
        self.long.insert(at, wait);
        if self.long.len() > BURST as usize {
            self.long.pop();
            self.allowance.untold += 1;
        }
    }

    /// Tells the long waits that came, as many as there may be.
    pub(super) fn tell(&mut self, tracker: &mut Tracker, export: &mut Export) {
        let now = Boottime::now();
        for wait in self.long.drain(..) {
            let Some(untold) = self.allowance.take(Instant::now()) else {
                continue;
            };
            let mut path = |id| tracker.cgroup_path(id, now);
            export.lock_wait(&LongWait {
                waiter_cgroup: path(wait.waiter.cgroup),
                holder_cgroup: wait.holder.as_ref().and_then(|had| path(had.task.cgroup)),
                wait: &wait,
                untold,
            });
        }
    }

    /// Reads what was counted, if it is time to, or `at_once`.
    pub(super) fn read(
        &mut self,
        probes: &Probes,
        tracker: &mut Tracker,
        export: &Export,
        at_once: bool,
    ) -> Result<(), ProbesError> {
        if !at_once && self.read.is_some_and(|read| read.elapsed() < READ) {
            return Ok(());
        }
        self.read = Some(Instant::now());
        let Some(snapshot) = probes.locks()? else {
            return Ok(());
        };
        let now = Boottime::now();
        self.waits
            .read(&snapshot, |id| tracker.cgroup_path(id, now));
        export.locks(&snapshot, &self.waits);
        Ok(())
    }
}

/// How many log records there may be.
#[derive(Debug)]
struct Allowance {
    left: u32,
    refilled: Instant,
    untold: u64,
}

impl Allowance {
    const fn full(now: Instant) -> Self {
        Self {
            left: BURST,
            refilled: now,
            untold: 0,
        }
    }

    /// Takes one if there is one; how many were refused since the last.
    fn take(&mut self, now: Instant) -> Option<u64> {
        while self.left < BURST && now.duration_since(self.refilled) >= REFILL {
            self.left += 1;
            self.refilled += REFILL;
        }
        if self.left == BURST {
            self.refilled = now;
        }
        if let Some(left) = self.left.checked_sub(1) {
            self.left = left;
            return Some(std::mem::take(&mut self.untold));
        }
        self.untold += 1;
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_records_are_few_and_say_how_many_were_not() {
        let begin = Instant::now();
        let mut allowance = Allowance::full(begin);
        let told = (0..100).filter(|_| allowance.take(begin).is_some()).count();
        assert_eq!(told, BURST as usize);
        assert_eq!(allowance.take(begin + REFILL), Some(90));
        assert_eq!(allowance.take(begin + REFILL), None);
        assert_eq!(allowance.take(begin + 3 * REFILL), Some(1));
        assert_eq!(allowance.take(begin + 3 * REFILL), Some(0));
        // A long silence fills it, and no more than that.
        let later = begin + 1000 * REFILL;
        let told = (0..100).filter(|_| allowance.take(later).is_some()).count();
        assert_eq!(told, BURST as usize);
    }
}
