//! Fork and exit.

use core::ffi::c_void;

use aya_ebpf::{
    bindings::BPF_NOEXIST,
    macros::{btf_tracepoint, map},
    maps::LruHashMap,
    programs::BtfTracePointContext,
};
use hearth_abi::{Fate, Kind, Opener, Probe};

use super::{account, stamp, watch};
use crate::{globals::config, ledger, ring, task::Task};

/// `CLONE_THREAD`.
const CLONE_THREAD: u64 = 0x0001_0000;

// task_newtask(struct task_struct *task, unsigned long clone_flags) (u64 since 6.17): at the
// end of copy_process, in the creator, before the child runs.
#[btf_tracepoint(function = "task_newtask")]
fn fork(ctx: BtfTracePointContext) -> i32 {
    ledger::account(Probe::Fork, || forked(&ctx));
    0
}

#[inline(always)]
fn forked(ctx: &BtfTracePointContext) -> Fate {
    let child = Task::of(ctx.arg::<*const c_void>(0));
    let clone_flags: u64 = ctx.arg(1);
    let creator = Task::current();
    let watched = watch::of(creator.tgid());

    if clone_flags & CLONE_THREAD != 0 {
        return match watched {
            Some(watch) if !watch::is_source(watch) => {
                // The id may have been another thread's before.
                account::forget(child.tid());
                if account::to(watch, child.tid(), account::State::Queued, stamp::now()) {
                    Fate::Aggregated
                } else {
                    Fate::DroppedMap
                }
            }
            _ => Fate::Filtered,
        };
    }

    let now = stamp::now();
    let (id, opener, ready) = match &watched {
        Some(watch) if watch::is_alone(watch) => return Fate::Filtered,
        Some(watch) => {
            let id = if watch::is_source(watch) {
                now
            } else {
                watch.id
            };
            (id, watch.opener, watch.ready)
        }
        None => {
            // clone3 with CLONE_INTO_CGROUP: the child is the first in a fresh cgroup.
            if config!(cgroup_opens) == 0 {
                return Fate::Filtered;
            }
            if !watch::take_fresh(child.memory_cgroup().id(), now) {
                return Fate::Filtered;
            }
            (now, Opener::Cgroup as u32, config!(ready))
        }
    };
    let child_tgid = child.tgid();
    let child_start = child.start_boottime();
    let made = watch::begin(&watch::New {
        tgid: child_tgid,
        start_boottime: child_start,
        id,
        opener,
        ready,
        began_ns: now,
        tid: child_tgid,
        state: account::State::Queued,
        alone: false,
    });
    if !made {
        return Fate::DroppedMap;
    }
    ring::mark(|mark| {
        stamp::fill(
            mark,
            Kind::Fork,
            now,
            creator,
            watched,
            [u64::from(child_tgid), child_start, clone_flags],
        );
        // SAFETY: written just now; a source's own id is none, the start's is the child's.
        unsafe { (*mark).watch = id };
    })
}

// sched_process_exit(struct task_struct *p) (and bool group_dead since 6.16). On 6.1 after
// exit_mm, on 6.18 before it: nothing of the address space is read here.
#[btf_tracepoint(function = "sched_process_exit")]
fn exit(ctx: BtfTracePointContext) -> i32 {
    ledger::account(Probe::Exit, || exited(&ctx));
    0
}

/// Processes of several threads whose end was marked, by tgid and start time.
#[map]
static ENDED: LruHashMap<[u64; 2], u8> = LruHashMap::with_max_entries(1024, 0);

/// Whether this thread is the first to find that its process is at its end: threads that are
/// killed together all count themselves out before the first of them comes here.
#[inline(always)]
fn is_first_end(task: Task, tgid: u32) -> bool {
    let process = [u64::from(tgid), task.start_boottime()];
    // The first comes while the others are still threads, so that it leaves its note.
    if task.threads() > 1 {
        return ENDED.insert(process, 1, BPF_NOEXIST.into()).is_ok();
    }
    ENDED.get_ptr(process).is_none()
}

#[inline(always)]
fn exited(ctx: &BtfTracePointContext) -> Fate {
    let task = Task::of(ctx.arg::<*const c_void>(0));
    if !task.group_dead() {
        return Fate::Filtered;
    }
    let tgid = task.tgid();
    let watched = watch::of(tgid);
    match &watched {
        Some(watch) if watch::is_source(watch) => {
            watch::end(tgid);
            return Fate::Filtered;
        }
        Some(_) => {}
        None if config!(every_exec) == 0 || task.never_execed() => return Fate::Filtered,
        None => {}
    }
    if !is_first_end(task, tgid) {
        return Fate::Filtered;
    }
    let was_watched = watched.is_some();
    let status = u64::from(task.exit_code());
    let fate = ring::mark(|mark| {
        stamp::fill(
            mark,
            Kind::Exit,
            stamp::now(),
            task,
            watched,
            [status, 0, 0],
        );
    });
    if was_watched {
        watch::end(tgid);
        account::forget(task.tid());
    }
    fate
}
