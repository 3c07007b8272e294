//! Time waited by cgroup, as totals that never shrink, of a bounded number of cgroups.

use std::collections::{BTreeMap, HashMap};

use hearth_abi::{Lock, Operation};

use crate::kernel::cgroup_lock::LockSnapshot;
use crate::time::Nanos;

/// Waits from which a cgroup is told by its name, between two readings.
const WORTH: u64 = 1_000_000;

/// What one cgroup waited.
#[derive(Clone, Copy, Debug)]
struct Slot {
    id: u64,
    waited: Nanos,
}

/// Sums up what the kernel side counts by cgroup. Its own counts are bounded too and begin at zero
/// again; what is waited by cgroups that are not told is the rest of the whole.
#[derive(Debug)]
pub struct WaitsByCgroup {
    most: usize,
    slots: BTreeMap<String, Slot>,
    /// The kernel side's sums as they were last read.
    read: HashMap<(Lock, Operation, u64), u64>,
    /// What was ever told by name, also of those whose slot is free again.
    named: u64,
    others: Nanos,
}

impl WaitsByCgroup {
    /// Tells at most `most` cgroups by name.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self {
            most,
            slots: BTreeMap::new(),
            read: HashMap::new(),
            named: 0,
            others: Nanos(0),
        }
    }

    /// Takes in a reading; `path` knows the cgroups that exist by id.
    pub fn read(&mut self, snapshot: &LockSnapshot, mut path: impl FnMut(u64) -> Option<String>) {
        // Whoever is gone waits no more, and its name is not needed for another's counter.
        self.slots.retain(|_, slot| path(slot.id).is_some());
        let mut came: BTreeMap<u64, u64> = BTreeMap::new();
        let mut read = HashMap::new();
        for counts in &snapshot.cgroups {
            let key = (counts.lock, counts.operation, counts.cgroup);
            let sum = counts.totals.wait_sum_ns;
            let before = self.read.get(&key).copied().unwrap_or(0);
            // One that began anew has come as a whole.
            *came.entry(counts.cgroup).or_default() += sum.checked_sub(before).unwrap_or(sum);
            read.insert(key, sum);
        }
        self.read = read;
        for (id, ns) in came {
            // A name may take a walk through the hierarchy.
            let Some(path) = (ns > 0).then(|| path(id)).flatten() else {
                continue;
            };
            let room = self.slots.len() < self.most && ns >= WORTH;
            if let Some(slot) = self.slots.get_mut(&path) {
                slot.id = id;
                slot.waited.0 += ns;
            } else if room {
                let waited = Nanos(ns);
                self.slots.insert(path, Slot { id, waited });
            } else {
                continue;
            }
            self.named += ns;
        }
        let whole: u64 = snapshot.counts.iter().map(|one| one.wait.sum.0).sum();
        // Read one after the other while they count: the rest may seem to shrink for a moment.
        let others = whole.saturating_sub(self.named);
        self.others = self.others.max(Nanos(others));
    }

    /// By path, what each waited since the beginning.
    pub fn named(&self) -> impl Iterator<Item = (&str, Nanos)> {
        self.slots
            .iter()
            .map(|(path, slot)| (path.as_str(), slot.waited))
    }

    /// What all others waited together.
    #[must_use]
    pub const fn others(&self) -> Nanos {
        self.others
    }
}

#[cfg(test)]
mod tests {
    use hearth_abi::LockTotals;

    use super::*;
    use crate::kernel::cgroup_lock::{LockCgroupCounts, LockCounts, Times};

    const MS: u64 = 1_000_000;

    fn snapshot(whole: u64, cgroups: &[(u64, u64)]) -> LockSnapshot {
        let mut wait = Times::NONE;
        wait.sum = Nanos(whole);
        let (lock, operation) = (Lock::CgroupMutex, Operation::Mkdir);
        LockSnapshot {
            counts: vec![LockCounts {
                lock,
                operation,
                wait,
                hold: Times::NONE,
                hold_exact: false,
            }],
            cgroups: cgroups
                .iter()
                .map(|&(cgroup, wait_sum_ns)| LockCgroupCounts {
                    lock,
                    operation,
                    cgroup,
                    totals: LockTotals {
                        wait_sum_ns,
                        ..LockTotals::default()
                    },
                })
                .collect(),
        }
    }

    fn known(id: u64) -> Option<String> {
        (id < 10).then(|| format!("/{id}"))
    }

    fn told(waits: &WaitsByCgroup) -> Vec<(&str, u64)> {
        waits
            .named()
            .map(|(path, waited)| (path, waited.0))
            .collect()
    }

    #[test]
    fn what_is_told_sums_to_the_whole() {
        let mut waits = WaitsByCgroup::new(2);
        // The third is beyond the bound, the fourth too little, the fifth without a name.
        let cgroups = [(1, 3 * MS), (2, 2 * MS), (3, 9 * MS), (4, 5), (99, MS)];
        waits.read(&snapshot(15 * MS + 5, &cgroups), known);
        assert_eq!(told(&waits), [("/1", 3 * MS), ("/2", 2 * MS)]);
        assert_eq!(waits.others(), Nanos(10 * MS + 5));
    }

    #[test]
    fn a_count_that_began_anew_goes_on_and_a_total_never_shrinks() {
        let mut waits = WaitsByCgroup::new(2);
        waits.read(&snapshot(3 * MS, &[(1, 3 * MS)]), known);
        waits.read(&snapshot(4 * MS, &[(1, MS)]), known);
        assert_eq!(told(&waits), [("/1", 4 * MS)]);
        waits.read(&snapshot(4 * MS, &[]), known);
        waits.read(&snapshot(6 * MS, &[(1, 2 * MS)]), known);
        assert_eq!(told(&waits), [("/1", 6 * MS)]);
        assert_eq!(waits.others(), Nanos(0));
    }

    #[test]
    fn who_is_gone_leaves_room_and_nothing_moves_to_the_others() {
        let mut waits = WaitsByCgroup::new(1);
        waits.read(&snapshot(3 * MS, &[(1, 3 * MS)]), known);
        let without = |id: u64| known(id).filter(|_| id != 1);
        waits.read(&snapshot(5 * MS, &[(1, 3 * MS), (2, 2 * MS)]), without);
        assert_eq!(told(&waits), [("/2", 2 * MS)]);
        assert_eq!(waits.others(), Nanos(0));
    }
}
