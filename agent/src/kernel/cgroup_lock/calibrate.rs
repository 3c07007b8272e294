//! Where a lock lies that has no symbol: by contending for it.
//!
//! Two threads make and remove cgroups, each in a parent of its own, until they have waited for
//! each other often enough. What they waited for in the function that takes `cgroup_mutex` and
//! nothing else is `cgroup_mutex`.

use std::{
    fs, io,
    os::{fd::OwnedFd, unix::fs::MetadataExt as _},
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use hearth_abi::{ABSENT, Lock, LockSeen};
use rustix::fs::{FlockOperation, Mode, OFlags, flock, fstat, open};
use rustix::io::retry_on_intr;
use thiserror::Error;

/// Begin of the names of the cgroups that are made for it.
const NAME: &str = "hearth-calibrate-";
/// How often one is made anew that another agent took for left behind.
const AGAIN: u32 = 100;
/// How long the threads are let run at a time.
const SLICE: Duration = Duration::from_millis(25);
/// How long they run at least, and at most.
const LEAST: Duration = Duration::from_millis(100);
const MOST: Duration = Duration::from_secs(3);
/// Waits that are enough.
const ENOUGH: u64 = 50;
/// Waits without which nothing is said.
const FEW: u64 = 5;

/// The lock could not be found.
#[derive(Debug, Error)]
pub enum CalibrationError {
    /// No cgroup file system.
    #[error("no cgroup file system is mounted")]
    NoHierarchy,
    /// Cgroups cannot be made.
    #[error("{}: {source}; calibration makes cgroups there", path.display())]
    Make {
        /// What could not be made.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The map of what was seen.
    #[error("what was waited for cannot be read: {0}")]
    Map(#[from] aya::maps::MapError),
    /// The threads never met.
    #[error("its own threads waited {0} times for each other, which says nothing")]
    Quiet(u64),
    /// They waited for several locks.
    #[error("its own threads waited for several locks in the same place: {0:x?}")]
    Ambiguous(Vec<(u64, u64)>),
}

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// Address of `cgroup_mutex`.
    pub(super) address: u64,
    /// Waits for it.
    pub(super) waits: u64,
}

/// Contends for `cgroup_mutex`; `seen` reads the waits of this process that the programs have
/// counted so far, by address.
pub(super) fn run(
    mut seen: impl FnMut() -> Result<Vec<(LockSeen, u64)>, aya::maps::MapError>,
) -> Result<Found, CalibrationError> {
    let mount = hierarchy().ok_or(CalibrationError::NoHierarchy)?;
    let own = Own::make(&mount)?;
    let stop = AtomicBool::new(false);
    let counted = thread::scope(|scope| {
        for parent in &own.parents {
            let stop = &stop;
            scope.spawn(move || {
                let child = parent.join("child");
                while !stop.load(Ordering::Relaxed) {
                    let _ = fs::create_dir(&child);
                    let _ = fs::remove_dir(&child);
                }
            });
        }
        let began = Instant::now();
        let counted = loop {
            thread::sleep(SLICE);
            let counted = seen();
            let enough = match &counted {
                Ok(counted) => candidates(counted).iter().map(|(_, n)| n).sum::<u64>() >= ENOUGH,
                Err(_) => true,
            };
            let ran = began.elapsed();
            if (enough && ran >= LEAST) || ran >= MOST {
                break counted;
            }
        };
        stop.store(true, Ordering::Relaxed);
        counted
    });
    drop(own);
    decide(&candidates(&counted?))
}

/// Addresses and waits, most first: by callers that take `cgroup_mutex`, or, where no caller is
/// known, of any mutex of the kernel's image.
fn candidates(counted: &[(LockSeen, u64)]) -> Vec<(u64, u64)> {
    let of = |lock: u32| {
        let mut of: Vec<_> = counted
            .iter()
            .filter(|(seen, _)| seen.lock == lock)
            .map(|(seen, waits)| (seen.address, *waits))
            .collect();
        of.sort_unstable_by_key(|&(address, waits)| (std::cmp::Reverse(waits), address));
        of
    };
    let known = of(Lock::CgroupMutex as u32);
    if known.is_empty() { of(ABSENT) } else { known }
}

/// One that stands out, or none.
fn decide(candidates: &[(u64, u64)]) -> Result<Found, CalibrationError> {
    let total: u64 = candidates.iter().map(|(_, waits)| waits).sum();
    match candidates {
        [(address, waits), ..] if total >= FEW && waits * 10 >= total * 9 => Ok(Found {
            address: *address,
            waits: *waits,
        }),
        _ if total < FEW => Err(CalibrationError::Quiet(total)),
        _ => Err(CalibrationError::Ambiguous(candidates.to_vec())),
    }
}

/// The cgroups of one calibration, removed with it.
struct Own {
    directory: PathBuf,
    parents: [PathBuf; 2],
    /// Says to others that somebody lives who removes them.
    _lock: OwnedFd,
}

impl Own {
    fn make(mount: &Path) -> Result<Self, CalibrationError> {
        let directory = mount.join(format!("{NAME}{}", std::process::id()));
        let own = Self {
            parents: ["a", "b"].map(|name| directory.join(name)),
            _lock: made(&directory).map_err(failed(&directory))?,
            directory,
        };
        for parent in &own.parents {
            fs::create_dir(parent).map_err(failed(parent))?;
        }
        Ok(own)
    }
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> CalibrationError {
    move |source| CalibrationError::Make {
        path: path.to_owned(),
        source,
    }
}

/// Makes a directory, with its lock. Before it is locked, an agent that tidies up may remove it.
fn made(directory: &Path) -> io::Result<OwnedFd> {
    let mut again = AGAIN;
    loop {
        fs::create_dir(directory)?;
        match locked(directory, FlockOperation::LockExclusive) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && again > 0 => again -= 1,
            Err(error) => {
                remove(directory);
                return Err(error);
            }
            Ok(lock) => return Ok(lock),
        }
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        remove(&self.directory);
    }
}

/// Where a cgroup costs least to make: v2 where it is mounted, else the first of v1.
fn hierarchy() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let of = |kind: &str| {
        mounts.lines().find_map(|line| {
            let (before, after) = line.split_once(" - ")?;
            (after.split(' ').next() == Some(kind)).then_some(())?;
            before.split(' ').nth(4).map(PathBuf::from)
        })
    };
    of("cgroup2").or_else(|| of("cgroup"))
}

/// Removes what calibrations left that were killed.
pub(super) fn tidy() {
    if let Some(mount) = hierarchy() {
        tidy_in(&mount);
    }
}

fn tidy_in(mount: &Path) {
    for entry in fs::read_dir(mount).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let process = name.to_str().and_then(|name| name.strip_prefix(NAME));
        let is_ours = process.is_some_and(|process| process.parse::<u32>().is_ok());
        // Whoever calibrates holds its lock, which goes with the process.
        if is_ours
            && let Ok(_lock) = locked(&entry.path(), FlockOperation::NonBlockingLockExclusive)
        {
            remove(&entry.path());
        }
    }
}

/// The lock of the directory at a path: not of one that was removed until it was locked.
fn locked(directory: &Path, how: FlockOperation) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = open(directory, flags, Mode::empty())?;
    retry_on_intr(|| flock(&fd, how))?;
    let is_there = fs::metadata(directory)?.ino() == fstat(&fd)?.st_ino;
    is_there
        .then_some(fd)
        .ok_or_else(|| io::ErrorKind::NotFound.into())
}

fn remove(directory: &Path) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove(&entry.path());
        }
    }
    if let Err(error) = fs::remove_dir(directory) {
        tracing::warn!(directory = %directory.display(), %error, "a cgroup of a calibration stays");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OF_MUTEX: u32 = Lock::CgroupMutex as u32;

    fn seen(address: u64, lock: u32, waits: u64) -> (LockSeen, u64) {
        let unused = 0;
        (
            LockSeen {
                address,
                lock,
                unused,
            },
            waits,
        )
    }

    #[test]
    fn the_lock_that_known_callers_waited_for_wins_over_any_other() {
        let counted = [
            seen(1, ABSENT, 900),
            seen(2, OF_MUTEX, 60),
            seen(3, OF_MUTEX, 1),
        ];
        let found = decide(&candidates(&counted)).expect("one");
        let expected = Found {
            address: 2,
            waits: 60,
        };
        assert_eq!(found, expected);
        let unnamed = [seen(1, ABSENT, 900), seen(5, ABSENT, 9)];
        assert_eq!(decide(&candidates(&unnamed)).expect("one").address, 1);
    }

    #[test]
    fn nothing_is_said_of_few_waits_or_of_two_locks() {
        let few = decide(&candidates(&[seen(2, OF_MUTEX, FEW - 1)]));
        assert!(matches!(few, Err(CalibrationError::Quiet(4))), "{few:?}");
        let two = decide(&candidates(&[seen(2, OF_MUTEX, 60), seen(3, OF_MUTEX, 50)]));
        assert!(
            matches!(two, Err(CalibrationError::Ambiguous(_))),
            "{two:?}"
        );
    }
    #[test]
    fn what_was_left_behind_goes_and_what_is_in_use_stays() {
        let mount = tempfile::tempdir().expect("a folder");
        let left = mount.path().join(format!("{NAME}1"));
        fs::create_dir_all(left.join("a")).expect("made");
        let own = Own::make(mount.path()).expect("made");
        tidy_in(mount.path());
        assert!(!left.exists() && own.parents.iter().all(|parent| parent.exists()));
        let directory = own.directory.clone();
        drop(own);
        assert!(!directory.exists());
    }

    #[test]
    fn agents_that_tidy_up_take_nothing_from_one_that_begins() {
        let mount = tempfile::tempdir().expect("a folder");
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    tidy_in(mount.path());
                }
            });
            let whole = (0..500).all(|_| {
                let own = Own::make(mount.path());
                own.is_ok_and(|own| own.parents.iter().all(|parent| parent.exists()))
            });
            stop.store(true, Ordering::Relaxed);
            assert!(whole, "its cgroups were removed");
        });
    }
}
