//! The observation: one kill for want of memory, with what the kill would have destroyed.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::address::Address;
pub use super::before::{Before, Pressure, Stall, UsageSample, Vma, VmaFile, VmaList};
pub use super::known::{Absent, Known, Reason};
use crate::time::Boottime;

/// One capture. Its JSON form is the stable interface described by
/// `docs/schema/oom.schema.json`, and the body of its file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Capture {
    /// Name of the capture on this node, also of its file.
    pub id: CaptureId,
    /// Version of hearth that made it.
    pub hearth: String,
    /// Boot id of the node: with a process' id and start it names the process for ever.
    pub boot_id: String,
    /// Release of the kernel, as `uname -r` has it.
    pub kernel: String,
    /// When the victim was chosen.
    #[serde(rename = "killed_ns")]
    pub killed: Boottime,
    /// The same, nanoseconds since 1970.
    pub killed_unix_ns: u64,
    /// Whether every thread that the victim had was seen at its exit.
    pub completeness: Completeness,
    /// Whether arguments were masked.
    pub masked: bool,
    /// Why the kernel killed.
    pub kill: Kill,
    /// Who was killed.
    pub victim: Victim,
    /// Who asked for memory.
    pub asker: Asker,
    /// The cgroup whose limit was hit; of a global kill the victim's.
    pub cgroup: Cgroup,
    /// What was read of that cgroup as soon as the kill was known.
    pub state: Known<CgroupState>,
    /// What the flight recorder had seen until then.
    pub before: Known<Before>,
    /// The victim's threads, by the order in which they came to their exit.
    pub threads: Vec<Thread>,
    /// Threads of which there is no record: beyond the bound, or lost, or not at their exit yet.
    pub threads_missing: u32,
    /// The mappings in which frames lie.
    pub mappings: Vec<Mapping>,
    /// Trace of the sandbox's cold start.
    pub trace: Known<TraceLink>,
}

/// Name of a capture: the time of the kill (UTC) and the victim, `20260102T030405.678Z-4711`,
/// so that names sort by age.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct CaptureId(String);

/// A text that names no capture.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not the name of a capture, such as 20260102T030405.678Z-4711; \
     see `hearth oom list`"
)]
pub struct NotAnId(String);

impl CaptureId {
    /// Longest name, bytes.
    const LONGEST: usize = 64;

    /// The name of a kill of `pid` at `unix_ns`.
    #[must_use]
    pub fn of(unix_ns: u64, pid: u32) -> Self {
        let time = UNIX_EPOCH + Duration::from_nanos(unix_ns);
        let time = humantime::format_rfc3339_millis(time).to_string();
        Self(format!("{}-{pid}", time.replace(['-', ':'], "")))
    }

    /// The name of the `n`th kill that would have the same one.
    #[must_use]
    pub fn again(&self, n: u32) -> Self {
        Self(format!("{}-{n}", self.0))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for CaptureId {
    type Error = NotAnId;

    /// Takes only what can be a file's name and nothing else.
    fn try_from(text: String) -> Result<Self, NotAnId> {
        let fits = text.len() <= Self::LONGEST && text.starts_with(|c: char| c.is_ascii_digit());
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'.' || byte == b'-';
        if fits && text.bytes().all(plain) {
            Ok(Self(text))
        } else {
            Err(NotAnId(text))
        }
    }
}

impl std::str::FromStr for CaptureId {
    type Err = NotAnId;

    fn from_str(text: &str) -> Result<Self, NotAnId> {
        Self::try_from(text.to_owned())
    }
}

impl fmt::Display for CaptureId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How much of the victim was seen at its exit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Completeness {
    /// Every thread.
    Complete,
    /// Some threads; the others did not come to their exit before the deadline, or their records
    /// were lost.
    SomeThreads,
    /// No thread: only the kill itself is known.
    KillOnly,
}

impl Completeness {
    /// Every value.
    pub const ALL: [Self; 3] = [Self::Complete, Self::SomeThreads, Self::KillOnly];

    /// The word used in JSON and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::SomeThreads => "some_threads",
            Self::KillOnly => "kill_only",
        }
    }
}

/// What ran out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Constraint {
    /// Nothing less than the node's memory.
    Global,
    /// The nodes of a cpuset.
    Cpuset,
    /// The nodes of a memory policy.
    MemoryPolicy,
    /// The limit of a memory cgroup.
    Cgroup,
    /// Not told.
    Unknown,
}

impl Constraint {
    /// Every value.
    pub const ALL: [Self; 5] = [
        Self::Global,
        Self::Cpuset,
        Self::MemoryPolicy,
        Self::Cgroup,
        Self::Unknown,
    ];

    /// The word used in JSON and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Global => "global",
            Self::Cpuset => "cpuset",
            Self::MemoryPolicy => "memory_policy",
            Self::Cgroup => "cgroup",
            Self::Unknown => "unknown",
        }
    }
}

/// Why the kernel killed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kill {
    /// What ran out.
    pub constraint: Constraint,
    /// Limit of the cgroup, bytes.
    pub limit_bytes: Known<u64>,
    /// What the cgroup used, bytes.
    pub usage_bytes: Known<u64>,
    /// Limit of its swap, bytes; of memory and swap together where `swap_with_memory`.
    pub swap_limit_bytes: Known<u64>,
    /// Its swap, likewise.
    pub swap_usage_bytes: Known<u64>,
    /// Whether the two above count memory and swap together, as cgroup v1 does.
    pub swap_with_memory: bool,
    /// What could be used in all, as the kernel weighed it, bytes.
    pub total_bytes: Known<u64>,
    /// The victim's points: the larger, the sooner it is chosen.
    pub points: Known<i64>,
    /// Size that was asked for, bytes.
    pub asked_bytes: Known<u64>,
    /// `gfp_t` of the request.
    pub gfp: Known<Address>,
    /// `killed_ns` of the first victim where the whole cgroup was killed (`memory.oom.group`).
    #[serde(rename = "group_ns")]
    pub group: Option<Boottime>,
    /// Values that are not exact, by name: `derived` (concluded from others) or `approximate`
    /// (read without a lock).
    pub inexact: BTreeMap<String, String>,
}

/// Who was killed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Victim {
    /// Process.
    pub pid: u32,
    /// `start_boottime` of its leader.
    #[serde(rename = "start_boottime_ns")]
    pub start_boottime: Boottime,
    /// User.
    pub uid: Known<u32>,
    /// The kernel's name of it, 15 bytes at most.
    pub comm: String,
    /// Command line, as far as the kernel side kept it; masked unless the settings say otherwise.
    pub command: Known<Vec<String>>,
    /// Bytes of the command line beyond those that were kept.
    pub command_cut_bytes: u64,
    /// File of its last exec, as the kernel told it.
    pub exe: Known<String>,
    /// `oom_score_adj`.
    pub oom_score_adj: Known<i32>,
    /// Threads that had not begun to exit when it was chosen.
    pub threads: u32,
    /// What its memory was made of.
    pub memory: Memory,
    /// Its own cgroup.
    pub cgroup: Cgroup,
    /// Container, from the cgroup's path.
    pub container_id: Option<String>,
    /// systemd unit, from the cgroup's path.
    pub unit: Option<String>,
    /// Kubernetes pod, from the cgroup's path.
    pub pod_uid: Option<String>,
}

/// What a process' memory is made of, bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// Anonymous pages.
    pub anon_bytes: Known<u64>,
    /// Pages of files.
    pub file_bytes: Known<u64>,
    /// Pages of shared memory.
    pub shmem_bytes: Known<u64>,
    /// Swapped out.
    pub swap_bytes: Known<u64>,
    /// Page tables.
    pub page_table_bytes: Known<u64>,
    /// Address space.
    pub virtual_bytes: Known<u64>,
}

/// Who asked for memory when there was none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asker {
    /// Process.
    pub pid: u32,
    /// Thread.
    pub tid: u32,
    /// Its name.
    pub comm: String,
    /// Its own cgroup.
    pub cgroup: Cgroup,
    /// Where in the kernel it was.
    pub kernel_stack: Known<Vec<Address>>,
}

/// A cgroup of the hierarchy with the memory controller.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cgroup {
    /// Inode of its directory; 0 where none applies.
    pub id: u64,
    /// Path within the hierarchy, as the kernel told it.
    pub path: Known<String>,
}

/// What the files of a cgroup said right after the kill.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CgroupState {
    /// When they were read.
    #[serde(rename = "at_ns")]
    pub at: Boottime,
    /// 1 or 2.
    pub version: u8,
    /// Limit, bytes; absent where there is none.
    pub limit_bytes: Known<u64>,
    /// `memory.high`, bytes.
    pub high_bytes: Known<u64>,
    /// Usage at that moment, when part of the victim may be gone already.
    pub usage_bytes: Known<u64>,
    /// The most it ever used.
    pub peak_bytes: Known<u64>,
    /// `memory.stat`.
    pub stat: Known<BTreeMap<String, u64>>,
    /// `memory.events` (v2), or `memory.failcnt` and `memory.oom_control` (v1).
    pub events: Known<BTreeMap<String, u64>>,
    /// `memory.pressure`.
    pub pressure: Known<Pressure>,
}

/// One thread of the victim at its exit (or at the kill, where it asked itself).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Thread {
    /// Thread.
    pub tid: u32,
    /// Its name.
    pub comm: String,
    /// When it was looked at.
    #[serde(rename = "at_ns")]
    pub at: Boottime,
    /// Whether it was looked at in its own context.
    pub own_context: bool,
    /// Its registers in user space.
    pub registers: Known<BTreeMap<String, Address>>,
    /// Its user stack, innermost first.
    pub user_stack: Known<Vec<Frame>>,
    /// Its kernel stack, innermost first.
    pub kernel_stack: Known<Vec<Address>>,
    /// The word at the stack pointer where it is an address of code: what a function that made no
    /// frame returns to.
    pub leaf: Known<Frame>,
    /// The memory at its stack pointer.
    pub stack_window: Known<Window>,
}

/// What is said of a word in a user stack that is no address of code: walks by frame pointers end
/// in what is no frame.
pub(super) const NO_CODE: &str = "no code is mapped there";

/// One frame of a user stack.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frame {
    /// Instruction; of all but the innermost the one that is returned to.
    pub ip: Address,
    /// Index into the capture's `mappings`.
    pub mapping: Known<u32>,
}

/// A mapping in which a frame lies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mapping {
    /// Where, what and how.
    #[serde(flatten)]
    pub vma: Vma,
    /// Where this node has the file, seen from the agent, when the capture was made.
    pub path: Known<String>,
    /// Build id of that file, hexadecimal: what tells it from others of that name.
    pub build_id: Known<String>,
}

/// A piece of a thread's stack.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// Address of the first byte.
    pub start: Address,
    /// The bytes, hexadecimal.
    pub bytes: String,
}

/// Ids of a trace and of the span in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceLink {
    /// 32 hexadecimal digits.
    pub trace_id: String,
    /// 16 hexadecimal digits.
    pub span_id: String,
}
