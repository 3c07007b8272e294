//! Which processes are watched. User space is too late to follow a fork, so that watching is
//! inherited here.

use aya_ebpf::{
    macros::map,
    maps::{HashMap, LruHashMap},
};
use hearth_abi::{COMM_BYTES, ExecRule, Watch, flags};

use super::account;

/// By tgid. Entries go when their process exits, or when user space has seen enough; when it
/// is full, a new start is not watched and counted as dropped.
#[map]
static WATCHED: HashMap<u32, Watch> = HashMap::with_max_entries(16384, 0);

/// Names of tasks whose exec opens a start.
#[map]
static RULES: HashMap<[u8; COMM_BYTES], ExecRule> = HashMap::with_max_entries(256, 0);

/// Cgroups that became populated a moment ago: id to boot time in ns.
#[map]
static FRESH: LruHashMap<u64, u64> = LruHashMap::with_max_entries(1024, 0);

/// How long a cgroup that became populated waits for its first process, ns.
const FRESH_NS: u64 = 10_000_000_000;

/// What is to be watched about a process.
pub struct New {
    /// Process id.
    pub tgid: u32,
    /// `start_boottime` of its leader.
    pub start_boottime: u64,
    /// Id of its start.
    pub id: u64,
    /// What opened the start.
    pub opener: u32,
    /// Bits of `hearth_abi::ready`.
    pub ready: u32,
    /// When it began to be watched, ns.
    pub began_ns: u64,
    /// Its only thread.
    pub tid: u32,
    /// What that thread does now.
    pub state: account::State,
    /// Whether it is a start by itself.
    pub alone: bool,
}

/// The entry of a process.
#[inline(always)]
pub fn of(tgid: u32) -> Option<&'static mut Watch> {
    // SAFETY: the entry may be reused when the process exits meanwhile; what is read then is
    // another watched process's, which costs a wrong mark at worst and never faults.
    WATCHED
        .get_ptr_mut(tgid)
        .map(|watch| unsafe { &mut *watch })
}

/// Whether the entry is one of a source (`hearth trace`, a fork server), which only opens
/// starts with its forks and whose own marks are not made.
#[inline(always)]
pub fn is_source(watch: &Watch) -> bool {
    watch.id == 0
}

/// Whether the process is a start by itself (every exec is one), watched for its causes.
#[inline(always)]
pub fn is_alone(watch: &Watch) -> bool {
    watch.flags & u32::from(flags::ALONE) != 0
}

/// Begins to watch a process; false when the map is full.
#[inline(always)]
pub fn begin(new: &New) -> bool {
    let watch = Watch {
        id: new.id,
        start_boottime: new.start_boottime,
        opener: new.opener,
        ready: new.ready,
        marked: 0,
        flags: u32::from(if new.alone {
            flags::ALONE
        } else if !matches!(new.state, account::State::Queued) {
            flags::LATE
        } else {
            0
        }),
        began_ns: new.began_ns,
        state: account::initial(new.tid, new.state, new.began_ns),
        accounted_ns: [0; 4],
    };
    WATCHED.insert(new.tgid, watch, 0).is_ok()
}

/// Ends it.
#[inline(always)]
pub fn end(tgid: u32) {
    let _ = WATCHED.remove(tgid);
}

/// The rule for a task's name.
#[inline(always)]
pub fn rule(comm: &[u8; COMM_BYTES]) -> Option<ExecRule> {
    // SAFETY: rules are only inserted before the programs are attached.
    unsafe { RULES.get(comm) }.copied()
}

/// Notes that a cgroup became populated.
#[inline(always)]
pub fn populated(id: u64, now: u64) {
    let _ = FRESH.insert(id, now, 0);
}

/// Whether a cgroup became populated a moment ago; true once for each time.
#[inline(always)]
pub fn take_fresh(id: u64, now: u64) -> bool {
    // SAFETY: the value is copied at once.
    let Some(&since) = (unsafe { FRESH.get(id) }) else {
        return false;
    };
    // Of two that come at once, one removes it.
    FRESH.remove(id).is_ok() && now.wrapping_sub(since) < FRESH_NS
}
