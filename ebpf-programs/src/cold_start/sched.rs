//! The scheduler, while something is watched: what each thread of a watched process does.

use core::ffi::c_void;

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};
use hearth_abi::{Fate, Probe};

use super::{
    account::{self, State},
    stamp, watch,
};
use crate::{ledger, task::Task};

const TASK_DEAD: u32 = 0x80;

// sched_switch(bool preempt, struct task_struct *prev, struct task_struct *next, unsigned int
// prev_state), with prev_state since 5.18. `prev_state` is read before `prev` leaves the CPU, so
// that a wake-up that races with it is not lost.
#[btf_tracepoint(function = "sched_switch")]
fn switch(ctx: BtfTracePointContext) -> i32 {
    ledger::account(Probe::Switch, || {
        let preempted = ctx.arg::<u64>(0) & 0xff != 0;
        let previous = Task::of(ctx.arg::<*const c_void>(1));
        let next = Task::of(ctx.arg::<*const c_void>(2));
        let state: u32 = ctx.arg(3);
        let mut fate = Fate::Filtered;
        if let Some(watch) = watch::of(previous.tgid())
            && !watch::is_source(watch)
        {
            let to = if state & TASK_DEAD != 0 {
                State::None
            } else if preempted || state == 0 {
                State::Queued
            } else if previous.in_iowait() {
                State::Io
            } else {
                State::Blocked
            };
            fate = moved(account::to(watch, previous.tid(), to, stamp::now()));
        }
        if let Some(watch) = watch::of(next.tgid())
            && !watch::is_source(watch)
        {
            fate = moved(account::to(watch, next.tid(), State::Running, stamp::now()));
        }
        fate
    });
    0
}

// sched_wakeup(struct task_struct *p): once it is on a run queue. A new task's first is
// accounted at its fork.
#[btf_tracepoint(function = "sched_wakeup")]
fn wakeup(ctx: BtfTracePointContext) -> i32 {
    ledger::account(Probe::Wakeup, || {
        let task = Task::of(ctx.arg::<*const c_void>(0));
        let Some(watch) = watch::of(task.tgid()) else {
            return Fate::Filtered;
        };
        let tid = task.tid();
        // A task that is woken before it left its CPU goes on running.
        if watch::is_source(watch)
            || !matches!(
                account::state_of(tid),
                State::Io | State::Blocked | State::None
            )
        {
            return Fate::Filtered;
        }
        moved(account::to(watch, tid, State::Queued, stamp::now()))
    });
    0
}

#[inline(always)]
fn moved(done: bool) -> Fate {
    if done {
        Fate::Aggregated
    } else {
        Fate::DroppedMap
    }
}
