//! First stage where functions can be followed: before the victim is sent its signal, and with
//! what the kernel itself knows of the shortage.

use core::ffi::c_void;

use aya_ebpf::{
    EbpfContext,
    bindings::task_struct,
    helpers::bpf_loop,
    macros::{fentry, fexit, kprobe, kretprobe, map},
    maps::LruHashMap,
    programs::{FEntryContext, FExitContext, ProbeContext, RetProbeContext},
};
use hearth_abi::{Fate, Probe};

use super::{kill, victims};
use crate::{
    ledger,
    task::{Address, Task},
};

/// Threads that are looked at for one that still has its address space.
const THREADS: u32 = 256;

/// A killing that is under way.
#[derive(Clone, Copy)]
#[repr(C)]
struct Killing {
    /// The `oom_control`.
    control: u64,
    /// Id of the first kill.
    first: u64,
}

/// By the asker's tid.
#[map]
static KILLINGS: LruHashMap<u32, Killing> = LruHashMap::with_max_entries(256, 0);

// static void oom_kill_process(struct oom_control *oc, const char *message), 4.11 and later. The
// kills of a group (memory.oom.group) are made within one call.
#[fentry(function = "oom_kill_process")]
fn oom_killing_begin(ctx: FEntryContext) -> i32 {
    begin(ctx.arg(0));
    0
}

// As above.
#[fexit(function = "oom_kill_process")]
fn oom_killing_end(_ctx: FExitContext) -> i32 {
    end();
    0
}

// static void __oom_kill_process(struct task_struct *victim, const char *message), 4.19 and later.
#[fentry(function = "__oom_kill_process")]
fn oom_killed(ctx: FEntryContext) -> i32 {
    let typed = ctx.arg::<*mut task_struct>(0);
    killed(ctx.as_ptr(), Task::of(typed.cast()), typed);
    0
}

// As above, by breakpoint.
#[kprobe(function = "oom_kill_process")]
fn oom_killing_begin_kprobe(ctx: ProbeContext) -> u32 {
    begin(ctx.arg(0).unwrap_or(core::ptr::null()));
    0
}

#[kretprobe(function = "oom_kill_process")]
fn oom_killing_end_kprobe(_ctx: RetProbeContext) -> u32 {
    end();
    0
}

#[kprobe(function = "__oom_kill_process")]
fn oom_killed_kprobe(ctx: ProbeContext) -> u32 {
    let victim: *const c_void = ctx.arg(0).unwrap_or(core::ptr::null());
    killed(ctx.as_ptr(), Task::of(victim), core::ptr::null_mut());
    0
}

#[inline(always)]
fn begin(control: *const c_void) {
    let killing = Killing {
        control: Address::of(control).raw(),
        first: 0,
    };
    let _ = KILLINGS.insert(Task::current().tid(), killing, 0);
}

#[inline(always)]
fn end() {
    let _ = KILLINGS.remove(Task::current().tid());
}

#[inline(always)]
fn killed(ctx: *mut c_void, victim: Task, typed: *mut task_struct) {
    ledger::account(Probe::OomKill, || {
        let mut search = Search {
            head: victim.thread_head(),
            node: victim.thread_node(),
            mm: 0,
        };
        // SAFETY: the callback takes what it is given here.
        unsafe {
            bpf_loop(
                THREADS,
                next_with_memory as *mut c_void,
                (&raw mut search).cast(),
                0,
            );
        }
        // The kernel looks likewise, and kills nobody who has no memory to give.
        if search.mm == 0 {
            return Fate::Filtered;
        }
        let Some(id) = victims::begin(victim) else {
            return Fate::Filtered;
        };
        let (control, first) = match KILLINGS.get_ptr_mut(Task::current().tid()) {
            // SAFETY: only this thread makes and changes its entry.
            Some(killing) => unsafe {
                if (*killing).first == 0 {
                    (*killing).first = id;
                }
                ((*killing).control, (*killing).first)
            },
            None => (0, id),
        };
        let fate = kill::publish(
            ctx,
            victim,
            &kill::Known {
                id,
                typed,
                mm: Address::from_raw(search.mm),
                control: Address::from_raw(control),
                first,
                doubtful: false,
            },
        );
        if let Some(noted) = victims::of(victim) {
            noted.leave(victim);
        }
        fate
    });
}

/// Looks for a thread that still has its address space: the leader can be gone.
struct Search {
    head: Address,
    node: Address,
    mm: u64,
}

unsafe extern "C" fn next_with_memory(_index: u64, search: *mut Search) -> u64 {
    // SAFETY: the caller's own value, alive for the whole loop.
    let search = unsafe { &mut *search };
    if search.node != search.head {
        search.mm = Task::of_thread_node(search.node).mm().raw();
    }
    search.node = search.node.follow(0);
    u64::from(search.mm != 0)
}
