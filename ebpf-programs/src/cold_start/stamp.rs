//! Fills in a mark in place.

use aya_ebpf::helpers::{bpf_get_smp_processor_id, bpf_ktime_get_boot_ns};
use hearth_abi::{Kind, Mark, Watch, flags};

use super::{account, watch};
use crate::task::Task;

/// Boot clock, ns.
#[inline(always)]
pub fn now() -> u64 {
    // SAFETY: always callable.
    unsafe { bpf_ktime_get_boot_ns() }
}

/// Writes every byte of a mark of `task`, which is the running one.
#[inline(always)]
pub fn fill(
    mark: *mut Mark,
    kind: Kind,
    now: u64,
    task: Task,
    watched: Option<&mut Watch>,
    args: [u64; 3],
) {
    // SAFETY: reserved memory of the ring, or a map value, of this size and alignment. Member by
    // member, every one: a value made first would take a third of the stack.
    unsafe {
        (*mark).kind = kind as u16;
        // SAFETY: always callable.
        (*mark).cpu = bpf_get_smp_processor_id();
        (*mark).boottime_ns = now;
        (*mark).tid = task.tid();
        (*mark).tgid = task.tgid();
        (*mark).start_boottime = task.start_boottime();
        (*mark).parent = task.parent();
        (*mark).cgroup = task.memory_cgroup().id();
        (*mark).args = args;
        let mut said = task.count(&raw mut (*mark).counters, &raw mut (*mark).threads);
        let mut id = 0;
        let mut accounted = [0; 4];
        if let Some(watch) = watched {
            if !watch::is_alone(watch) {
                id = watch.id;
                said |= flags::WATCHED | watch.flags as u16;
            }
            if account::is_complete_since(watch.began_ns) && account::settle(watch, now) {
                said |= flags::ACCOUNTED;
                accounted = watch.accounted_ns;
            }
        }
        (*mark).counters.running_ns = accounted[0];
        (*mark).counters.queued_ns = accounted[1];
        (*mark).counters.io_ns = accounted[2];
        (*mark).counters.blocked_ns = accounted[3];
        (*mark).flags = said;
        (*mark).watch = id;
    }
}
