//! Exec: its begin, and the moment at which the new image is in place.

use aya_ebpf::{
    helpers::{bpf_probe_read_kernel_str_bytes, bpf_probe_read_user_str_bytes},
    macros::{btf_tracepoint, fentry, map},
    maps::{LruHashMap, PerCpuArray},
    programs::{BtfTracePointContext, FEntryContext},
};
use aya_log_ebpf::warn;
use core::ffi::c_void;
use hearth_abi::{Fate, Kind, Mark, Opener, Probe, Text};

use super::{
    account::{self, State},
    stamp, uprobes, watch,
};
use crate::{
    globals::{config, offset},
    ledger, ring,
    task::{Address, Task},
};

/// Execs under way, by tid: the mark to be published when one succeeds.
#[map]
static PENDING: LruHashMap<u32, Mark> = LruHashMap::with_max_entries(8192, 0);

/// Where a mark is made that goes into a map: it would take a third of the stack.
#[map]
static SCRATCH: PerCpuArray<Mark> = PerCpuArray::with_max_entries(1, 0);

/// Error bounds of the strategies, ns: what lies between the system call's entry and the hook.
const AT_SYSCALL_NS: u64 = 0;
const AT_MM_INIT_NS: u64 = 10_000;
const AT_PREPARE_NS: u64 = 33_000;

/// `mm_init` allocates several per-CPU objects; those of one exec come within this time.
const BURST_NS: u64 = 20_000;

/// Between its system call and its new address space an exec opens a file: that may take a disk.
const EXEC_NS: u64 = 100_000_000;

/// Notes the begin of an exec of the current thread.
#[inline(always)]
fn begin(bound_ns: u64) -> Fate {
    let task = Task::current();
    let tid = task.tid();
    let now = stamp::now();
    if bound_ns != AT_SYSCALL_NS {
        // SAFETY: the value is read at once.
        if let Some(known) = unsafe { PENDING.get(tid) } {
            // The first of a burst is the earliest; and a begin seen at the system call is exact,
            // if it is of this exec: one that failed unseen leaves its entry behind.
            let age = now.wrapping_sub(known.boottime_ns);
            let is_exact = known.args[0] < bound_ns && age < EXEC_NS;
            if known.start_boottime == task.start_boottime() && (is_exact || age < BURST_NS) {
                return Fate::Filtered;
            }
        }
    }
    let tgid = task.tgid();
    let watched = watch::of(tgid);
    if watched.is_none() && config!(every_exec) == 0 && config!(exec_opens) == 0 {
        return Fate::Filtered;
    }
    let Some(mark) = SCRATCH.get_ptr_mut(0) else {
        return Fate::DroppedMap;
    };
    stamp::fill(mark, Kind::ExecBegin, now, task, watched, [bound_ns, 0, 0]);
    // SAFETY: this CPU's own, filled just now.
    let mark: &Mark = unsafe { &*mark };
    match PENDING.insert(tid, mark, 0) {
        // Programs can be preempted: another thread's may have written over it meanwhile.
        Ok(()) if mark.tid == tid => Fate::Aggregated,
        Ok(()) => {
            forget(tid);
            Fate::DroppedMap
        }
        Err(_) => Fate::DroppedMap,
    }
}

/// Called at the entry of `execve` by the watch set.
#[inline(always)]
pub fn begin_at_syscall() -> Fate {
    begin(AT_SYSCALL_NS)
}

/// An exec failed: its begin must not be taken for that of a later one.
#[inline(always)]
pub fn forget(tid: u32) {
    let _ = PENDING.remove(tid);
}

// long __x64_sys_execve(const struct pt_regs *regs), 4.17 and later.
#[fentry(function = "__x64_sys_execve")]
fn exec_begin_execve(_ctx: FEntryContext) -> i32 {
    ledger::account(Probe::ExecBegin, begin_at_syscall);
    0
}

// long __x64_sys_execveat(const struct pt_regs *regs), 4.17 and later.
#[fentry(function = "__x64_sys_execveat")]
fn exec_begin_execveat(_ctx: FEntryContext) -> i32 {
    ledger::account(Probe::ExecBegin, begin_at_syscall);
    0
}

// percpu_alloc_percpu(call_site, reserved, is_atomic, size, align, base_addr, off, ptr,
// bytes_alloc, gfp_flags), 5.19 and later: in mm_init, when the new address space is made. Fork
// passes here too; its begin is overwritten by the exec's, or never used.
#[btf_tracepoint(function = "percpu_alloc_percpu")]
fn exec_begin_percpu(_ctx: BtfTracePointContext) -> i32 {
    ledger::account(Probe::ExecBegin, || begin(AT_MM_INIT_NS));
    0
}

// sched_prepare_exec(struct task_struct *task, struct linux_binprm *bprm), 6.9 and later.
#[btf_tracepoint(function = "sched_prepare_exec")]
fn exec_begin_prepare(_ctx: BtfTracePointContext) -> i32 {
    ledger::account(Probe::ExecBegin, || begin(AT_PREPARE_NS));
    0
}

// sched_process_exec(struct task_struct *p, pid_t old_pid, struct linux_binprm *bprm). The
// leader's start_boottime survives an exec by another thread, which takes the leader's place.
#[btf_tracepoint(function = "sched_process_exec")]
fn exec(ctx: BtfTracePointContext) -> i32 {
    ledger::account(Probe::Exec, || exec_done(&ctx));
    0
}

#[inline(always)]
fn exec_done(ctx: &BtfTracePointContext) -> Fate {
    let task = Task::of(ctx.arg::<*const c_void>(0));
    let old_tid = ctx.arg::<i32>(1) as u32;
    let program = Address::of(ctx.arg::<*const c_void>(2));
    let now = stamp::now();
    let tgid = task.tgid();
    // SAFETY: only this thread makes and takes its entry.
    let begin = unsafe { PENDING.get(old_tid) };

    let mut watched = watch::of(tgid);
    uprobes::forget(tgid);
    if let Some(watch) = &mut watched
        && !watch::is_source(watch)
    {
        account::restart(watch, old_tid, tgid, now);
    }
    match &watched {
        Some(watch) if watch::is_source(watch) => {
            forget(old_tid);
            return Fate::Filtered;
        }
        Some(_) => {}
        None => {
            if let Some(rule) = watch::rule(&task.comm()) {
                let is_server = rule.opener == Opener::Fork as u32;
                let opened = begin.map_or(now, |mark| mark.boottime_ns);
                let made = watch::begin(&watch::New {
                    tgid,
                    start_boottime: task.start_boottime(),
                    id: if is_server { 0 } else { opened },
                    opener: rule.opener,
                    ready: rule.ready,
                    began_ns: opened,
                    tid: tgid,
                    state: State::Running,
                    alone: false,
                });
                if !made {
                    forget(old_tid);
                    return Fate::DroppedMap;
                }
                if is_server {
                    forget(old_tid);
                    return Fate::Aggregated;
                }
                watched = watch::of(tgid);
            }
        }
    }
    if watched.is_none() {
        if config!(every_exec) == 0 {
            if begin.is_some() {
                forget(old_tid);
            }
            return Fate::Filtered;
        }
        if account::is_followed() {
            let opened = begin.map_or(now, |mark| mark.boottime_ns);
            // When the map is full the start has no causes, which its marks say.
            watch::begin(&watch::New {
                tgid,
                start_boottime: task.start_boottime(),
                id: opened,
                opener: Opener::Exec as u32,
                ready: config!(ready),
                began_ns: opened,
                tid: tgid,
                state: State::Running,
                alone: true,
            });
            watched = watch::of(tgid);
        }
    }

    if let Some(begin) = begin {
        let id = match &watched {
            Some(watch) if !watch::is_alone(watch) => watch.id,
            _ => 0,
        };
        ledger::account(Probe::ExecBeginRecord, || {
            ring::mark(|mark| {
                // SAFETY: reserved memory of the ring of this size; then two of its members.
                unsafe {
                    mark.write(*begin);
                    (*mark).watch = id;
                }
            })
        });
        forget(old_tid);
    }

    let node = program
        .follow(offset!(bprm_file))
        .follow(offset!(file_inode));
    let inode: u64 = node.get(offset!(inode_ino));
    let device: u32 = node.follow(offset!(inode_sb)).get(offset!(sb_dev));
    if inode == 0 {
        warn!(ctx, "exec: no inode of the new image of process {}", tgid);
    }
    let start_code: u64 = task.mm().get(offset!(mm_start_code));
    let arguments: u64 = task.mm().get(offset!(mm_arg_start));
    let start_boottime = task.start_boottime();
    let fate = ring::mark(|mark| {
        stamp::fill(
            mark,
            Kind::Exec,
            now,
            task,
            watched,
            [inode, u64::from(device), start_code],
        );
    });
    ledger::account(Probe::ExecText, || {
        ring::text(|text| {
            // SAFETY: reserved memory of the ring of this size, written in whole: a reserved
            // record holds what an earlier one left.
            let text = unsafe {
                core::ptr::write_bytes(text.cast::<u64>(), 0, size_of::<Text>() / 8);
                &mut *text
            };
            text.kind = Kind::ExecText as u16;
            text.tgid = tgid;
            text.boottime_ns = now;
            text.start_boottime = start_boottime;
            text.id = inode;
            let name = program.follow(offset!(bprm_filename));
            // SAFETY: the helpers check the addresses; an unreadable name stays empty.
            let _ = unsafe { bpf_probe_read_kernel_str_bytes(name.as_ptr(), &mut text.long) };
            // SAFETY: as above.
            let _ =
                unsafe { bpf_probe_read_user_str_bytes(arguments as *const u8, &mut text.short) };
        })
    });
    fate
}
