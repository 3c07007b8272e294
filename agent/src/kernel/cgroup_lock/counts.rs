//! What the programs have counted: totals since they were attached.

use aya::maps::{MapData, MapError, PerCpuArray, PerCpuValues};
use hearth_abi::{
    LOCK_BUCKETS, LOCK_ROWS, Lock, LockCgroup, LockRow, LockTimes, LockTotals, Operation,
};

use crate::kernel::walk::Walk;
use crate::time::Nanos;

/// Waits, or holds, of one lock and operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// How many.
    pub count: u64,
    /// Their sum.
    pub sum: Nanos,
    /// The longest.
    pub max: Nanos,
    /// Counts by bucket; [`hearth_abi::bucket_end_ns`] says where each ends.
    pub buckets: [u64; LOCK_BUCKETS],
}

impl Times {
    /// None.
    pub const NONE: Self = Self {
        count: 0,
        sum: Nanos(0),
        max: Nanos(0),
        buckets: [0; LOCK_BUCKETS],
    };

    fn add(&mut self, of: &LockTimes) {
        self.count += of.count;
        self.sum.0 += of.sum_ns;
        self.max.0 = self.max.0.max(of.max_ns);
        for (total, &count) in self.buckets.iter_mut().zip(&of.buckets) {
            *total += count;
        }
    }
}

/// One lock and operation, over all CPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LockCounts {
    /// Lock.
    pub lock: Lock,
    /// Operation.
    pub operation: Operation,
    /// Time from asking for the lock to having it, of those who had to wait.
    pub wait: Times,
    /// Time from having it to dropping it, of the holds that could be measured.
    pub hold: Times,
    /// Whether `hold` is exact; else it is an upper bound, of contended holds only.
    pub hold_exact: bool,
}

/// One lock, operation and cgroup. Bounded: of those that were not seen for long nothing is left,
/// and they begin at zero again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LockCgroupCounts {
    /// Lock.
    pub lock: Lock,
    /// Operation.
    pub operation: Operation,
    /// Cgroup id of the waiting (or holding) task in the hierarchy with the memory controller; 0
    /// when unknown.
    pub cgroup: u64,
    /// Totals.
    pub totals: LockTotals,
}

/// Everything counted, at one moment. Totals never shrink, but for those by cgroup.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LockSnapshot {
    /// By lock and operation; those that never occurred are left out.
    pub counts: Vec<LockCounts>,
    /// By cgroup as well, in no order; the rest of `counts` is of cgroups that went.
    pub cgroups: Vec<LockCgroupCounts>,
}

/// The maps that the programs count in.
pub(in crate::kernel) struct LockMaps {
    rows: PerCpuArray<MapData, LockRow>,
    cgroups: Walk<LockCgroup, LockTotals>,
}

impl LockMaps {
    /// Of the maps.
    pub(in crate::kernel) fn new(
        rows: PerCpuArray<MapData, LockRow>,
        cgroups: Walk<LockCgroup, LockTotals>,
    ) -> Self {
        Self { rows, cgroups }
    }

    /// Begins again at zero; `ways` to measure have rows.
    pub(in crate::kernel) fn clear(&mut self, ways: u32) -> Result<(), MapError> {
        const ZERO: LockRow = LockRow {
            wait: LockTimes::NONE,
            hold: LockTimes::NONE,
        };
        for row in 0..LOCK_ROWS * ways {
            let cpus = self.rows.get(&row, 0)?.len();
            let zeros = PerCpuValues::try_from(vec![ZERO; cpus])?;
            self.rows.set(row, zeros, 0)?;
        }
        for (key, _) in self.cgroups.entries()? {
            // Evicted meanwhile is as good.
            let _ = self.cgroups.remove(&key);
        }
        Ok(())
    }

    /// Reads all; `exact` are the locks whose holds are exact.
    pub(in crate::kernel) fn read(&self, exact: &[Lock]) -> Result<LockSnapshot, MapError> {
        Ok(LockSnapshot {
            counts: self.read_rows(0, exact)?,
            cgroups: self.read_cgroups()?,
        })
    }

    /// The rows of the way to measure with this index; there is one, unless several are compared.
    pub(in crate::kernel) fn read_rows(
        &self,
        way: u32,
        exact: &[Lock],
    ) -> Result<Vec<LockCounts>, MapError> {
        let mut counts = Vec::new();
        for lock in Lock::ALL {
            for operation in Operation::ALL {
                let row = way * LOCK_ROWS + LockRow::index(lock, operation);
                let mut sum = LockCounts {
                    lock,
                    operation,
                    wait: Times::NONE,
                    hold: Times::NONE,
                    hold_exact: exact.contains(&lock),
                };
                for row in self.rows.get(&row, 0)?.iter() {
                    sum.wait.add(&row.wait);
                    sum.hold.add(&row.hold);
                }
                if sum.wait.count + sum.hold.count > 0 {
                    counts.push(sum);
                }
            }
        }
        Ok(counts)
    }

    fn read_cgroups(&self) -> Result<Vec<LockCgroupCounts>, MapError> {
        let counts = self
            .cgroups
            .entries()?
            .into_iter()
            .filter_map(|(key, totals)| {
                Some(LockCgroupCounts {
                    lock: Lock::from_u32(key.lock)?,
                    operation: Operation::from_u32(key.operation)?,
                    cgroup: key.cgroup,
                    totals,
                })
            });
        Ok(counts.collect())
    }
}
