//! The flight recorder: what was known of a cgroup before the kernel killed in it.
//!
//! A thread of its own watches every cgroup that has a memory limit, cheaply, and samples those
//! that are near it several times a second, into rings of half a minute. Nothing is written but
//! requests to be woken, which the kernel forgets when their files are closed.

mod armed;
mod board;
mod controller;
mod look;
mod maps;
mod pressure;
mod rounds;
mod samples;
mod tree;
mod wake;
mod watched;

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use caps::Capability;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::Serialize;
use thiserror::Error;

use super::before::{Before, ProcessMemory, UsageSample};
use super::known::Known;
use crate::observe::identity::{HierarchyError, MemoryHierarchy};
use crate::privilege;
use crate::time::{Boottime, Nanos};
use board::Board;
pub use board::Process;
use rounds::Rounds;

/// Percent of the node's memory from which on the node is near its limit.
const NODE_NEAR_PERCENT: u64 = 95;
/// Files kept open for one watched cgroup: its usage, and its counters or its threshold.
const FILES: u64 = 2;
/// Files kept open for all else: armed cgroups have up to seven.
const OTHER_FILES: u64 = 1024;

/// What the recorder needs: to read the mappings of the processes of others, in the places
/// where those see them.
const RECORDING: [Capability; 2] = [Capability::CAP_SYS_PTRACE, Capability::CAP_DAC_READ_SEARCH];

/// How the recorder goes about it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// Share of its limit from which on a cgroup is near it, 0 to 1.
    pub near: f64,
    /// Cgroups with a limit that are watched.
    pub max_cgroups: usize,
}

/// Totals since the recorder began, unless they say otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Cgroups with a limit that are watched now.
    pub watched: u64,
    /// Of these, and the node, those that are near their limits now.
    pub armed: u64,
    /// Cgroups with a limit that are not watched because there are too many, as of the last walk
    /// and since.
    pub beyond: u64,
    /// How often one came near its limit.
    pub armings: u64,
    /// Cgroups that were near their limits and not sampled because too many others were.
    pub refused: u64,
    /// How often it was left open for a round whether a full cgroup is full of pages that can be
    /// dropped.
    pub unsure: u64,
    /// How often the kernel woke the recorder.
    pub woken: u64,
    /// Readings of cgroups near their limits.
    pub samples: u64,
    /// Looks at their processes.
    pub looks: u64,
    /// How often the kernel had more changes of directories to tell than it keeps.
    pub changes_lost: u64,
    /// Lists of mappings that went because there were too many.
    pub lists_dropped: u64,
    /// Records of cgroups no longer near that went because there were too many.
    pub records_dropped: u64,
}

/// A cgroup that is near its limit, or the node.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Near {
    /// Inode of its directory; `None` of the node.
    pub id: Option<u64>,
    /// Path within the hierarchy; `None` of the node.
    pub path: Option<String>,
    /// What it used last.
    pub usage: UsageSample,
    /// Where the kernel kills, bytes.
    pub limit_bytes: u64,
    /// Share of the limit that reclaim cannot get back, 0 to 1 (and above, for a moment).
    pub share: f64,
    /// How fast it grew over the last 30 seconds; `None` of fewer than two samples.
    pub growth_bytes_per_second: Option<f64>,
    /// When it will reach its limit at the rate of the last 5 seconds; `None` when it is not
    /// growing.
    #[serde(rename = "time_to_limit_ns")]
    pub time_to_limit: Option<Nanos>,
    /// The processes that held most at the last look.
    pub processes: Vec<ProcessMemory>,
}

/// A recorder that cannot begin.
#[derive(Debug, Error)]
pub enum RecorderError {
    /// There is nothing to record.
    #[error(transparent)]
    Hierarchy(#[from] HierarchyError),
    /// It cannot wait.
    #[error("cannot wait for changes of cgroups: {0}")]
    Wait(#[source] io::Error),
    /// It has no thread.
    #[error("cannot start its thread: {0}")]
    Thread(#[source] io::Error),
}

/// The thread that records; it ends when this is dropped.
#[derive(Debug)]
pub struct Recorder {
    recorded: Recorded,
    stop: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

/// What was recorded, for whoever asks.
#[derive(Clone)]
pub struct Recorded {
    board: Arc<Mutex<Board>>,
    counts: Arc<Mutex<Counts>>,
}

impl std::fmt::Debug for Recorded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recorded").finish_non_exhaustive()
    }
}

impl Recorder {
    /// Begins to record the cgroups of this node.
    pub fn start(settings: Settings) -> Result<Self, RecorderError> {
        let hierarchy = MemoryHierarchy::find()?;
        let recorded = Recorded {
            board: Arc::default(),
            counts: Arc::default(),
        };
        let settings = Settings {
            max_cgroups: within_file_limit(settings.max_cgroups),
            ..settings
        };
        let shared = (Arc::clone(&recorded.board), Arc::clone(&recorded.counts));
        let rounds = Rounds::new(settings, hierarchy.mount(), hierarchy.root(), shared)
            .map_err(RecorderError::Wait)?;
        let stop = rounds.stop();
        let thread = thread::Builder::new()
            .name("hearth-recorder".to_owned())
            .spawn(move || {
                if let Err(error) = privilege::keep_only(&RECORDING, &[]) {
                    tracing::warn!("the recorder keeps its capabilities: {error}");
                }
                rounds.run();
            })
            .map_err(RecorderError::Thread)?;
        Ok(Self {
            recorded,
            stop,
            thread: Some(thread),
        })
    }

    /// The reading end.
    #[must_use]
    pub fn recorded(&self) -> Recorded {
        self.recorded.clone()
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        let told = rustix::io::write(&*self.stop, &1u64.to_ne_bytes());
        if let Some(thread) = self.thread.take().filter(|_| told.is_ok()) {
            let _ = thread.join();
        }
    }
}

impl Recorded {
    /// What was known at `at` of the cgroup with this id and of `victim`, a process in it.
    #[must_use]
    pub fn before_kill_in(&self, cgroup: u64, victim: Process, at: Boottime) -> Known<Before> {
        lock(&self.board).before(cgroup, victim, at)
    }

    /// What was known at `at` of the node, where it was all of its memory that ran out.
    #[must_use]
    pub fn before_kill_on_node(&self, victim: Process, at: Boottime) -> Known<Before> {
        lock(&self.board).before(board::NODE, victim, at)
    }

    /// Who is near a limit now, the nearest first.
    #[must_use]
    pub fn near(&self) -> Vec<Near> {
        lock(&self.board).near()
    }

    /// How much there was to do.
    #[must_use]
    pub fn counts(&self) -> Counts {
        *lock(&self.counts)
    }
}

/// As many cgroups as there may be open files for, up to `wanted`; takes the limit of open files
/// as far up as that needs and this process may.
fn within_file_limit(wanted: usize) -> usize {
    let needed = wanted as u64 * FILES + OTHER_FILES;
    let limit = getrlimit(Resource::Nofile);
    let maximum = limit.maximum.unwrap_or(u64::MAX);
    let mut current = limit.current.unwrap_or(u64::MAX);
    if current < needed && current < maximum {
        let raised = Rlimit {
            current: Some(needed.min(maximum)),
            maximum: limit.maximum,
        };
        if setrlimit(Resource::Nofile, raised).is_ok() {
            current = needed.min(maximum);
        }
    }
    let room = current.saturating_sub(OTHER_FILES) / FILES;
    wanted.min(usize::try_from(room).unwrap_or(wanted))
}

/// What is behind the locks is whole between any two statements: a panic in between does not
/// spoil it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
