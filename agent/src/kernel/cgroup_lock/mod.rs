//! The user side of the `cgroup_lock` signal in the kernel: what its programs are told (settings,
//! which lock lies where, which functions mean which operation), and what they have counted.

mod calibrate;
mod compare;
mod counts;
mod functions;

pub use calibrate::CalibrationError;
pub use compare::{Compared, Comparison};
pub use counts::{LockCgroupCounts, LockCounts, LockSnapshot, Times};

use aya::{
    Ebpf,
    maps::{Array, HashMap, Map, MapError},
};
use counts::LockMaps;
use functions::Symbols;
use hearth_abi::{Lock, LockFunction, LockSeen, LockSettings};

use super::{
    attach::HookReport,
    probes::{ProbesError, map as map_of},
};
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
    /// Whether `cgroup_mutex` is found by contending for it even where it has a symbol.
    pub calibrate: bool,
}

impl Default for LockLimits {
    fn default() -> Self {
        Self {
            threshold: Nanos(1_000_000),
            watched_threshold: Nanos(100_000),
            records_per_second: 100,
            calibrate: false,
        }
    }
}

impl LockLimits {
    /// As the programs take it while they are being attached: which holds are exact is not known
    /// yet, so that no bound is taken for one, and no record says anything of it.
    fn settings(&self) -> LockSettings {
        LockSettings {
            threshold_ns: u64::MAX,
            watched_threshold_ns: u64::MAX,
            records_per_second: self.records_per_second,
            exact_holds: u32::MAX,
            mutex_address: 0,
            threadgroup_address: 0,
            calibrating: 0,
            compare: 0,
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
    maps: LockMaps,
    /// Locks whose holds are exact.
    exact: Vec<Lock>,
    addresses: Vec<LockAddress>,
    calibration: Option<String>,
}

/// Hook, and the strategies by which it is exact, and of which locks.
const EXACT: [(&str, &[&str], &[Lock]); 2] = [
    (
        "lock:hold",
        &["fentry", "kprobe"],
        &[
            Lock::CgroupMutex,
            Lock::ThreadgroupRwsem,
            Lock::ProcessRwsem,
        ],
    ),
    ("lock:rstat", &["tp_btf"], &[Lock::Rstat]),
];

/// Tells the programs, before they are attached, what they must not be without.
pub(super) fn prepare(
    ebpf: &mut Ebpf,
    limits: &LockLimits,
) -> Result<Vec<LockAddress>, ProbesError> {
    let symbols = Symbols::of_running_kernel().unwrap_or_else(|error| {
        tracing::warn!(%error, "/proc/kallsyms cannot be read: operations are not known");
        Symbols::default()
    });
    if symbols.functions.is_empty() {
        tracing::warn!(
            "the kernel hides its symbols (CAP_SYSLOG would show them): operations and most locks \
             are not known"
        );
    }
    let mut functions: Array<_, LockFunction> = borrowed(ebpf, "LOCK_FUNCTIONS")?;
    for (index, function) in symbols.table() {
        functions
            .set(index, function, 0)
            .map_err(wrong("LOCK_FUNCTIONS"))?;
    }
    let mut addresses: HashMap<_, u64, u32> = borrowed(ebpf, "LOCK_ADDRESSES")?;
    for &(lock, address) in &symbols.locks {
        addresses
            .insert(address, lock as u32, 0)
            .map_err(wrong("LOCK_ADDRESSES"))?;
    }
    let at = |wanted: Lock| {
        let found = symbols.locks.iter().find(|(lock, _)| *lock == wanted);
        found.map_or(0, |(_, address)| *address)
    };
    let settings = LockSettings {
        mutex_address: at(Lock::CgroupMutex),
        threadgroup_address: at(Lock::ThreadgroupRwsem),
        ..limits.settings()
    };
    let mut map: Array<_, LockSettings> = borrowed(ebpf, "LOCK_SETTINGS")?;
    map.set(0, settings, 0).map_err(wrong("LOCK_SETTINGS"))?;
    let named = |&(lock, address): &(Lock, u64)| LockAddress {
        lock: lock.name(),
        address,
        known: Known::Symbol,
    };
    Ok(symbols.locks.iter().map(named).collect())
}

impl Locks {
    /// Takes the maps that the attached programs count in, and finds `cgroup_mutex` where it has
    /// no symbol.
    pub(super) fn start(
        ebpf: &mut Ebpf,
        report: &[HookReport],
        mut addresses: Vec<LockAddress>,
        limits: &LockLimits,
    ) -> Result<Self, ProbesError> {
        let exact = exact(report);
        let mut map: Array<_, LockSettings> = borrowed(ebpf, "LOCK_SETTINGS")?;
        let mut settings = map.get(&0, 0).map_err(wrong("LOCK_SETTINGS"))?;
        settings.exact_holds = exact.iter().fold(0, |bits, &lock| bits | 1 << lock as u32);
        settings.threshold_ns = limits.threshold.0;
        settings.watched_threshold_ns = limits.watched_threshold.0;
        map.set(0, settings, 0).map_err(wrong("LOCK_SETTINGS"))?;
        calibrate::tidy();
        let mut calibration = None;
        let is_calibrated =
            (settings.mutex_address == 0 || limits.calibrate) && is_attached(report, "lock:wait");
        if is_calibrated {
            match calibrated(ebpf, settings) {
                Ok(found) => {
                    tracing::debug!(waits = found.waits, "cgroup_mutex is found");
                    addresses.push(LockAddress {
                        lock: Lock::CgroupMutex.name(),
                        address: found.address,
                        known: Known::Calibration,
                    });
                }
                Err(error) => {
                    tracing::warn!("cgroup_mutex is not known before it is waited for: {error}");
                    calibration = Some(error.to_string());
                }
            }
        }
        let mut maps = LockMaps::new(map_of(ebpf, "LOCK_COUNTS")?, map_of(ebpf, "LOCK_CGROUPS")?);
        if is_calibrated {
            // Own work is nobody's contention.
            maps.clear(1).map_err(wrong("LOCK_COUNTS"))?;
        }
        Ok(Self {
            maps,
            exact,
            addresses,
            calibration,
        })
    }

    /// What was counted so far.
    pub(super) fn read(&self) -> Result<LockSnapshot, ProbesError> {
        self.maps.read(&self.exact).map_err(wrong("LOCK_COUNTS"))
    }

    /// The locks that are known by their address.
    pub(super) fn addresses(&self) -> &[LockAddress] {
        &self.addresses
    }

    /// Why `cgroup_mutex` could not be found at the start, if it could not.
    pub(super) fn calibration(&self) -> Option<&str> {
        self.calibration.as_deref()
    }
}

fn is_attached(report: &[HookReport], kind: &str) -> bool {
    report
        .iter()
        .any(|hook| hook.kind == kind && hook.strategy.is_some())
}

fn exact(report: &[HookReport]) -> Vec<Lock> {
    let is_exact = |(kind, strategies, _): &&(&str, &[&str], &[Lock])| {
        report.iter().any(|hook| {
            hook.kind == *kind && hook.strategy.is_some_and(|by| strategies.contains(&by))
        })
    };
    EXACT
        .iter()
        .filter(is_exact)
        .flat_map(|(_, _, locks)| locks.iter().copied())
        .collect()
}

/// Finds `cgroup_mutex` by contending for it, and tells the programs.
fn calibrated(
    ebpf: &mut Ebpf,
    mut settings: LockSettings,
) -> Result<calibrate::Found, CalibrationError> {
    let missing = |name: &str| {
        CalibrationError::Map(MapError::InvalidName {
            name: name.to_owned(),
        })
    };
    let tell = |ebpf: &mut Ebpf, settings| -> Result<(), CalibrationError> {
        let map = ebpf.map_mut("LOCK_SETTINGS");
        let map = map.ok_or_else(|| missing("LOCK_SETTINGS"))?;
        Array::<_, LockSettings>::try_from(map)?.set(0, settings, 0)?;
        Ok(())
    };
    settings.calibrating = std::process::id();
    tell(ebpf, settings)?;
    let seen = ebpf.map("LOCK_SEEN").ok_or_else(|| missing("LOCK_SEEN"))?;
    let seen: HashMap<_, LockSeen, u64> = HashMap::try_from(seen)?;
    let found = calibrate::run(|| seen.iter().collect());
    settings.calibrating = 0;
    if let Ok(found) = &found {
        settings.mutex_address = found.address;
    }
    tell(ebpf, settings)?;
    let found = found?;
    let map = ebpf.map_mut("LOCK_ADDRESSES");
    let map = map.ok_or_else(|| missing("LOCK_ADDRESSES"))?;
    let mut addresses = HashMap::<_, u64, u32>::try_from(map)?;
    addresses.insert(found.address, Lock::CgroupMutex as u32, 0)?;
    Ok(found)
}

fn wrong(map: &'static str) -> impl FnOnce(MapError) -> ProbesError {
    move |error| ProbesError::Map(map, Box::new(error))
}

/// A map that stays with the programs: taken before they are loaded, it is lost to them.
fn borrowed<'a, T: TryFrom<&'a mut Map, Error = MapError>>(
    ebpf: &'a mut Ebpf,
    name: &'static str,
) -> Result<T, ProbesError> {
    let map = ebpf.map_mut(name).ok_or(ProbesError::NoMap(name))?;
    T::try_from(map).map_err(wrong(name))
}
