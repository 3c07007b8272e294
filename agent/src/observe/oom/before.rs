//! What the flight recorder knew of a cgroup, and of the process in it, before a kill.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::known::Known;
use crate::time::Boottime;

/// The recorder's last look at the cgroup and at the victim, ending before the kill.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Before {
    /// Usage of the cgroup over the last 30 seconds or less, oldest first.
    pub usage: Vec<UsageSample>,
    /// Pressure as of the last sample.
    pub pressure: Known<Pressure>,
    /// `memory.events` (v1: `memory.failcnt` and `memory.oom_control`) as of the last sample.
    pub events: Known<BTreeMap<String, u64>>,
    /// `memory.stat` as of the first sample, to be compared with that of the kill.
    pub stat: Known<BTreeMap<String, u64>>,
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
    pub start: u64,
    /// First address behind it.
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
