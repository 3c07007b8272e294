//! Second stage: a thread of a victim exits, in its own context, its memory still there.

use core::ffi::c_void;

use aya_ebpf::{
    EbpfContext,
    bindings::{BPF_F_USER_STACK, task_struct},
    helpers::{
        bpf_get_smp_processor_id,
        generated::{
            bpf_get_current_task_btf, bpf_get_stack, bpf_probe_read_kernel, bpf_probe_read_user,
            bpf_task_pt_regs,
        },
    },
    macros::{btf_tracepoint, fentry, kprobe},
    programs::{BtfTracePointContext, FEntryContext, ProbeContext},
};
use hearth_abi::{
    Fate, OOM_KERNEL_FRAMES, OOM_USER_FRAMES, OomRecord, OomSource, OomThread, OomThreadField,
    Probe, oom_thread,
};

use super::{
    mapping::{self, Whose},
    memcg, memory,
    victims::{self, Victim},
};
use crate::{clock, globals::oom_config, ledger, ring, task::Task};

/// A wait status of SIGKILL.
const KILLED: u32 = 9;
/// The signal in a wait status.
const SIGNAL: u32 = 0x7f;

/// Of `pt_regs`.
const RIP: usize = 16;
pub const RSP: usize = 19;

// sched_process_exit(struct task_struct *p, bool group_dead), 6.16 and later: before exit_mm.
// Earlier ones come after it and have one argument, so that the verifier refuses this program.
#[btf_tracepoint(function = "sched_process_exit")]
fn oom_thread(ctx: BtfTracePointContext) -> i32 {
    let is_last = ctx.arg::<u32>(1) & 1 != 0;
    ledger::account(Probe::OomThread, || {
        let task = Task::current();
        match victims::of(task) {
            Some(victim) => {
                victim.enter();
                let others = task.live();
                let fate = exits(ctx.as_ptr(), Some(&mut *victim), others, is_last);
                victim.leave(task);
                fate
            }
            // Sent its signal already, and gone before the kernel has marked its process.
            None if task.exit_code() & SIGNAL == KILLED && memcg::is_killing(task) => {
                exits(ctx.as_ptr(), None, task.live(), is_last)
            }
            None => Fate::Filtered,
        }
    });
    0
}

// void __noreturn do_exit(long code), since ever. It has not counted itself out yet.
#[fentry(function = "do_exit")]
fn oom_thread_fentry(ctx: FEntryContext) -> i32 {
    before_exit(ctx.as_ptr());
    0
}

// As above, by breakpoint.
#[kprobe(function = "do_exit")]
fn oom_thread_kprobe(ctx: ProbeContext) -> u32 {
    before_exit(ctx.as_ptr());
    0
}

#[inline(always)]
fn before_exit(ctx: *mut c_void) {
    ledger::account(Probe::OomThread, || {
        let task = Task::current();
        match victims::of(task) {
            Some(victim) => {
                let others = task.live().wrapping_sub(1);
                exits(ctx, Some(victim), others, others == 0)
            }
            None => Fate::Filtered,
        }
    });
}

// sched_process_exit(struct task_struct *p), before 6.16: after every thread that counted itself
// out has passed do_exit's begin.
#[btf_tracepoint(function = "sched_process_exit")]
fn oom_ended(_ctx: BtfTracePointContext) -> i32 {
    let task = Task::current();
    if let Some(victim) = victims::of(task)
        && task.live() == 0
    {
        victim.end(task.tgid());
    }
    0
}

/// Makes the records of the running thread.
#[inline(always)]
fn exits(ctx: *mut c_void, mut victim: Option<&mut Victim>, others: u32, is_last: bool) -> Fate {
    let mut id = 0;
    let mut before = 0;
    if let Some(victim) = &mut victim {
        id = victim.id;
        before = victim.record();
        if before >= oom_config!(threads) {
            victim.give_up();
            // Counted in the record of the end.
            return Fate::Aggregated;
        }
    }
    let fate = ring::capture_if::<OomThread>(|record| {
        // SAFETY: reserved memory of the ring of this size, all zero.
        let record = unsafe { &mut *record };
        record.kind = OomRecord::Thread as u16;
        record.flags = if is_last { oom_thread::LAST } else { 0 };
        if id == 0 {
            record.flags |= oom_thread::EARLY;
        }
        record.id = id;
        fill(ctx, record, others);
        let whose = Whose {
            id,
            tgid: record.task.tgid,
            tid: record.task.tid,
            start_boottime: record.task.start_boottime,
        };
        let mapped = mapping::of_thread(&whose, record);
        note(record, OomThreadField::Mappings, mapped.frames);
        let stack = memory::stack(&whose, record.registers[RSP], mapped.stack_end);
        note(record, OomThreadField::StackMemory, stack);
        let line = if before == 0 {
            memory::command_line(&whose)
        } else {
            OomSource::Off
        };
        note(record, OomThreadField::CommandLine, line);
        true
    });
    if let (Fate::DroppedRing, Some(victim)) = (fate, victim) {
        victim.give_up();
    }
    fate
}

/// Says where a field is from.
#[inline(always)]
pub fn note(record: &mut OomThread, field: OomThreadField, source: OomSource) {
    record.sources[field as usize] = source as u8;
}

#[inline(always)]
fn fill(ctx: *mut c_void, record: &mut OomThread, others: u32) {
    let task = Task::current();
    // SAFETY: always callable.
    record.cpu = unsafe { bpf_get_smp_processor_id() };
    record.boottime_ns = clock::now();
    victims::identify(&mut record.task, task);
    record.others = others;
    record.exit_code = task.exit_code();
    // SAFETY: the running task, and a helper that checks what it reads.
    let failed = unsafe {
        let registers = bpf_task_pt_regs(current());
        bpf_probe_read_kernel(
            (&raw mut record.registers).cast(),
            size_of_val(&record.registers) as u32,
            registers as *const c_void,
        )
    };
    if failed != 0 {
        note(record, OomThreadField::Registers, OomSource::Unreadable);
    }
    if task.mm().is_null() {
        note(record, OomThreadField::UserStack, OomSource::None);
        note(record, OomThreadField::Leaf, OomSource::None);
    } else {
        user_stack(ctx, record);
    }
    // SAFETY: memory of the size that is said.
    let bytes = unsafe {
        bpf_get_stack(
            ctx,
            (&raw mut record.kernel_stack).cast(),
            (OOM_KERNEL_FRAMES * size_of::<u64>()) as u32,
            0,
        )
    };
    if bytes > 0 {
        record.kernel_frames = bytes as u32 / size_of::<u64>() as u32;
    } else {
        note(record, OomThreadField::KernelStack, OomSource::Unreadable);
    }
}

#[inline(always)]
fn user_stack(ctx: *mut c_void, record: &mut OomThread) {
    // SAFETY: memory of the size that is said.
    let bytes = unsafe {
        bpf_get_stack(
            ctx,
            (&raw mut record.user_stack).cast(),
            (OOM_USER_FRAMES * size_of::<u64>()) as u32,
            u64::from(BPF_F_USER_STACK),
        )
    };
    if bytes > 0 {
        record.user_frames = bytes as u32 / size_of::<u64>() as u32;
    } else {
        record.user_stack[0] = record.registers[RIP];
        record.user_frames = 1;
        note(record, OomThreadField::UserStack, OomSource::Derived);
    }
    let mut word = 0_u64;
    // SAFETY: memory of the size that is said; the source is checked by the helper.
    let failed = unsafe {
        bpf_probe_read_user(
            (&raw mut word).cast(),
            size_of::<u64>() as u32,
            record.registers[RSP] as *const c_void,
        )
    };
    if failed == 0 {
        record.leaf = word;
    } else {
        note(record, OomThreadField::Leaf, OomSource::Unreadable);
    }
}

/// The running task, as the helpers want it.
#[inline(always)]
pub fn current() -> *mut task_struct {
    // SAFETY: always callable.
    unsafe { bpf_get_current_task_btf() }
}
