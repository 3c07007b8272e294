//! What the flight recorder knew of a cgroup, and of the process in it, before a kill.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::known::Known;
use crate::time::{Boottime, Nanos};

/// The recorder's last look at the cgroup and at the victim, ending before the kill.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Before {
    /// Usage of the cgroup over the last 30 seconds or less, oldest first.
    pub usage: Vec<UsageSample>,
    /// The limit that it neared, bytes.
    #[serde(rename = "limit_bytes")]
    pub limit: Known<u64>,
    /// How fast it grew over these samples, bytes per second; below 0 it shrank.
    #[serde(rename = "growth_bytes_per_second")]
    pub growth: Known<f64>,
    /// How long it would have taken, as of the last sample, to reach the limit at that rate.
    #[serde(rename = "time_to_limit_ns")]
    pub time_to_limit: Known<Nanos>,
    /// Whether the kernel kills all processes of the cgroup together (`memory.oom.group`).
    pub oom_group: Known<bool>,
    /// Pressure as of the last sample.
    pub pressure: Known<Pressure>,
    /// `memory.events` (v1: `memory.failcnt` and `memory.oom_control`) as of the last sample.
    pub events: Known<BTreeMap<String, u64>>,
    /// `memory.stat` as of the first sample, to be compared with that of the kill.
    pub stat: Known<BTreeMap<String, u64>>,
    /// The processes that held most as of the last look, largest first.
    pub processes: Known<Vec<ProcessMemory>>,
    /// The victim's address space.
    pub vmas: Known<VmaList>,
}

/// What a cgroup used at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsageSample {
    /// When.
    #[serde(rename = "at_ns")]
    pub at: Boottime,
    /// Bytes charged.
    pub bytes: u64,
    /// Of these, bytes that reclaim cannot get back by dropping pages of files; `None` where
    /// `memory.stat` could not be read.
    pub needed_bytes: Option<u64>,
}

/// What one process of the cgroup held at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessMemory {
    /// Its id.
    pub pid: u32,
    /// Its name as the kernel has it; empty where it was gone before it could be asked.
    pub name: String,
    /// When.
    #[serde(rename = "at_ns")]
    pub at: Boottime,
    /// Resident memory, bytes.
    pub rss_bytes: u64,
    /// Its `oom_score_adj`, -1000 to 1000.
    pub oom_score_adj: i16,
}

/// One reading of a pressure file (`memory.pressure`).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pressure {
    /// When.
    #[serde(rename = "at_ns")]
    pub at: Boottime,
    /// Time in which some task waited for memory.
    pub some: Stall,
    /// Time in which all did.
    pub full: Stall,
}

impl Pressure {
    /// Reads the text of a pressure file, as of `at`.
    #[must_use]
    pub fn parse(text: &str, at: Boottime) -> Option<Self> {
        let line = |which: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(which))?;
            let value = |name: &str| {
                let mut words = line.split_ascii_whitespace();
                words.find_map(|word| word.strip_prefix(name))
            };
            Some(Stall {
                avg10: value("avg10=")?.parse().ok()?,
                avg60: value("avg60=")?.parse().ok()?,
                avg300: value("avg300=")?.parse().ok()?,
                total_us: value("total=")?.parse().ok()?,
            })
        };
        Some(Self {
            at,
            some: line("some ")?,
            full: line("full ")?,
        })
    }
}

/// One line of a pressure file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Stall {
    /// Percent of the last 10 seconds.
    pub avg10: f64,
    /// Percent of the last 60 seconds.
    pub avg60: f64,
    /// Percent of the last 300 seconds.
    pub avg300: f64,
    /// In all, microseconds.
    pub total_us: u64,
}

/// The address space of one process at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmaList {
    /// When it was read.
    #[serde(rename = "at_ns")]
    pub at: Boottime,
    /// The mappings, by address.
    pub vmas: Vec<Vma>,
    /// Mappings beyond those that are kept.
    pub more: u64,
}

/// One mapping of an address space.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vma {
    /// First address.
    #[serde(with = "super::address::hex")]
    pub start: u64,
    /// First address behind it.
    #[serde(with = "super::address::hex")]
    pub end: u64,
    /// Permissions as `/proc/PID/maps` has them (`r-xp`).
    pub perms: String,
    /// Offset in the file, bytes.
    pub offset: u64,
    /// The file, where there is one.
    pub file: Option<VmaFile>,
    /// Path, or a name in brackets (`[heap]`), as told; empty where there is none.
    pub name: String,
}

impl Vma {
    /// Whether what is there can be run.
    #[must_use]
    pub fn is_code(&self) -> bool {
        self.perms.contains('x')
    }
}

/// The file behind a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct VmaFile {
    /// Major number of its device.
    pub major: u32,
    /// Minor number of its device.
    pub minor: u32,
    /// Inode.
    pub inode: u64,
}
