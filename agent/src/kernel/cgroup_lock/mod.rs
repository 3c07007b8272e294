//! The user side of the `cgroup_lock` signal in the kernel: what its programs are told (settings,
//! which lock lies where, which functions mean which operation), and what they have counted.

mod counts;

pub use counts::{LockCgroupCounts, LockCounts, LockSnapshot, Times};

use aya::Ebpf;
use counts::LockMaps;
use hearth_abi::{Lock, LockSettings};

use super::{attach::HookReport, probes::ProbesError};
use crate::time::Nanos;

/// How the waits are told one by one; all of them are in the counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LockLimits {
    /// Waits at least this long make a record.
    pub threshold: Nanos,
    /// The same for tasks of watched starts.
    pub watched_threshold: Nanos,
    /// Records that a CPU makes in a second; further waits are in the counts only.
    pub records_per_second: u32,
}

impl Default for LockLimits {
    fn default() -> Self {
        Self {
            threshold: Nanos(1_000_000),
            watched_threshold: Nanos(100_000),
            records_per_second: 100,
        }
    }
}

impl LockLimits {
    /// As the programs take it; `exact` are the locks whose holds brackets measure.
    #[must_use]
    pub fn settings(&self, exact: &[Lock]) -> LockSettings {
        LockSettings {
            threshold_ns: self.threshold.0,
            watched_threshold_ns: self.watched_threshold.0,
            records_per_second: self.records_per_second,
            exact_holds: exact.iter().fold(0, |bits, &lock| bits | 1 << lock as u32),
        }
    }
}

/// How it is known which of the kernel's locks one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Known {
    /// The kernel's list of symbols has it.
    Symbol,
    /// Own work contended for it, in a function that takes nothing else.
    Calibration,
    /// By where it lies: inside of a structure of a cgroup file system or a process, or by the
    /// function that waits for it.
    Structure,
}

/// A lock that is known by its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct LockAddress {
    /// Lock's word.
    pub lock: &'static str,
    /// Address in the kernel, which is another one after the next boot.
    pub address: u64,
    /// How it is known.
    pub known: Known,
}

/// The signal as one value, once its programs are attached.
pub(super) struct Locks {
    maps: Option<LockMaps>,
    /// Locks whose holds brackets measure.
    exact: Vec<Lock>,
    addresses: Vec<LockAddress>,
}

impl Locks {
    /// Tells the programs what they need, and takes the maps that they count in.
    pub(super) fn start(
        _ebpf: &mut Ebpf,
        _report: &[HookReport],
        _limits: &LockLimits,
    ) -> Result<Self, ProbesError> {
        Ok(Self {
            maps: None,
            exact: Vec::new(),
            addresses: Vec::new(),
        })
    }

    /// What was counted so far.
    pub(super) fn read(&self) -> Result<LockSnapshot, ProbesError> {
        let Some(maps) = &self.maps else {
            return Ok(LockSnapshot::default());
        };
        maps.read(&self.exact)
            .map_err(|error| ProbesError::Map("LOCK_COUNTS", Box::new(error)))
    }

    /// The locks that are known by their address.
    pub(super) fn addresses(&self) -> &[LockAddress] {
        &self.addresses
    }
}
