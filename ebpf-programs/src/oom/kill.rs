//! First stage: the record of the kill, made by the task that asked for memory.

use core::ffi::c_void;

use aya_ebpf::{
    bindings::task_struct,
    helpers::{
        bpf_get_smp_processor_id,
        generated::{bpf_get_stack, bpf_get_task_stack, bpf_probe_read_kernel, bpf_task_pt_regs},
    },
};
use hearth_abi::{
    ABSENT, Fate, OOM_KERNEL_FRAMES, OomConstraint, OomKill, OomKillField, OomRecord, OomSource,
    oom_kill,
};

use super::{
    counters,
    memcg::{Climb, Memcg},
    victims,
};
use crate::{
    globals::{offset, oom_config},
    ring,
    task::{Address, Task},
};

/// Frames of the asker in which the functions that kill must be: they are near.
const NEAR: usize = 12;

/// What a hook knows of a kill.
pub struct Known {
    /// Id of the capture.
    pub id: u64,
    /// The victim, as the helpers want it; null where the verifier does not know its type.
    pub typed: *mut task_struct,
    /// Its address space.
    pub mm: Address,
    /// The `oom_control`; null where the hook is not given it.
    pub control: Address,
    /// Id of the first kill of the killing that it is part of; 0 where that is not known.
    pub first: u64,
    /// Whether to look into the asker's stack if this is a kill at all.
    pub doubtful: bool,
}

/// Says where a field is from.
#[inline(always)]
pub fn note(kill: &mut OomKill, field: OomKillField, source: OomSource) {
    kill.sources[field as usize] = source as u8;
}

/// Publishes the kill of `victim`.
#[inline(always)]
pub fn publish(ctx: *mut c_void, victim: Task, known: &Known) -> Fate {
    ring::capture_if::<OomKill>(|kill| {
        // SAFETY: reserved memory of the ring of this size, all zero.
        let kill = unsafe { &mut *kill };
        asker_stack(ctx, kill);
        if known.doubtful && !is_kill(kill) {
            return false;
        }
        let asker = Task::current();
        kill.kind = OomRecord::Kill as u16;
        // SAFETY: always callable.
        kill.cpu = unsafe { bpf_get_smp_processor_id() };
        kill.id = known.id;
        victims::identify(&mut kill.victim, victim);
        victims::identify(&mut kill.asker, asker);
        let asked = kill.victim.tgid == kill.asker.tgid;
        if asked {
            kill.flags |= oom_kill::VICTIM_ASKED;
        }
        kill.uid = victim.uid();
        kill.threads = victim.live();
        kill.oom_score_adj = i32::from(victim.oom_score_adj());
        address_space(kill, known.mm);
        shortage(kill, victim, known);
        context(ctx, kill, victim, known.typed);
        true
    })
}

#[inline(always)]
fn address_space(kill: &mut OomKill, mm: Address) {
    counters::tell(kill, mm);
    kill.page_table_bytes = mm.get(offset!(mm_page_tables));
    kill.total_vm_pages = mm.get(offset!(mm_total_vm));
    if offset!(mm_page_tables) == ABSENT {
        note(kill, OomKillField::PageTables, OomSource::NotOnThisKernel);
    }
}

/// What was short.
#[inline(always)]
fn shortage(kill: &mut OomKill, victim: Task, known: &Known) {
    let control = known.control;
    let limit = control.follow(offset!(oc_memcg));
    let climb = Climb::of(victim, limit);
    let has_group = if control.is_null() {
        note(kill, OomKillField::Request, OomSource::OutOfReach);
        note(kill, OomKillField::Points, OomSource::OutOfReach);
        derive(kill, &climb)
    } else {
        kill.gfp = control.get(offset!(oc_gfp));
        kill.order = control.get(offset!(oc_order));
        kill.total_pages = control.get(offset!(oc_total_pages));
        kill.points = control.get(offset!(oc_points));
        if limit.is_null() {
            no_memcg(kill, OomSource::Read, OomSource::None);
            kill.constraint = control.get::<u32>(offset!(oc_constraint)) as u16;
        } else {
            Memcg::of(limit).tell(kill, OomSource::Read);
        }
        climb.has_group()
    };
    if has_group {
        kill.flags |= oom_kill::GROUP;
        kill.group = known.first;
        if known.first == 0 {
            // Which kills are of one group cannot be told from here.
            note(kill, OomKillField::Group, OomSource::OutOfReach);
        }
    }
}

/// What was short where the hook is not told: the asker's callers say whether it was a cgroup, and
/// its locks, or its usage, which one. Whether a whole group is killed.
#[inline(always)]
fn derive(kill: &mut OomKill, climb: &Climb) -> bool {
    let (begin, end) = (oom_config!(limit_begin), oom_config!(limit_end));
    let is_known = begin != 0 && kill.asker_frames != 0;
    let is_limit = is_known && is_called(kill, begin, end);
    if is_known && !is_limit {
        no_memcg(kill, OomSource::Derived, OomSource::None);
        climb.has_group()
    } else if !climb.killing.memcg().is_null() {
        climb.killing.memcg().tell(kill, OomSource::Derived);
        climb.killing.has_group
    } else if is_limit && !climb.exceeded.memcg().is_null() {
        // Whoever writes a limit below the usage kills without a lock.
        climb.exceeded.memcg().tell(kill, OomSource::Derived);
        climb.exceeded.has_group
    } else if is_limit {
        no_memcg(kill, OomSource::Derived, OomSource::OutOfReach);
        kill.constraint = OomConstraint::Memcg as u16;
        false
    } else {
        no_memcg(kill, OomSource::OutOfReach, OomSource::OutOfReach);
        false
    }
}

/// Says that no cgroup can be named: `source` of what was short, `why` of the cgroup.
#[inline(always)]
fn no_memcg(kill: &mut OomKill, source: OomSource, why: OomSource) {
    kill.constraint = OomConstraint::None as u16;
    note(kill, OomKillField::Constraint, source);
    note(kill, OomKillField::Memcg, why);
    note(kill, OomKillField::Usage, why);
    note(kill, OomKillField::SwapUsage, why);
}

/// Registers and kernel stack of the victim's thread.
#[inline(always)]
fn context(ctx: *mut c_void, kill: &mut OomKill, victim: Task, typed: *mut task_struct) {
    let size = (OOM_KERNEL_FRAMES * size_of::<u64>()) as u32;
    let to: *mut c_void = (&raw mut kill.victim_stack).cast();
    if typed.is_null() {
        note(kill, OomKillField::Registers, OomSource::OutOfReach);
        note(kill, OomKillField::VictimStack, OomSource::OutOfReach);
        return;
    }
    // SAFETY: a task of the type that the helper wants, and memory of the size that is said. A
    // running task's stack is not walked from outside: it is the asker's.
    let bytes = unsafe {
        if victim.tid() == kill.asker.tid {
            bpf_get_stack(ctx, to, size, 0)
        } else {
            bpf_get_task_stack(typed, to, size, 0)
        }
    };
    if bytes > 0 {
        kill.victim_frames = bytes as u32 / size_of::<u64>() as u32;
    } else {
        note(kill, OomKillField::VictimStack, OomSource::Unreadable);
    }
    // SAFETY: as above; what is returned is only read through a helper that checks it.
    let failed = unsafe {
        let registers = bpf_task_pt_regs(typed);
        bpf_probe_read_kernel(
            (&raw mut kill.registers).cast(),
            size_of_val(&kill.registers) as u32,
            registers as *const c_void,
        )
    };
    if failed != 0 {
        note(kill, OomKillField::Registers, OomSource::Unreadable);
    }
}

#[inline(always)]
fn asker_stack(ctx: *mut c_void, kill: &mut OomKill) {
    // SAFETY: memory of the size that is said.
    let bytes = unsafe {
        bpf_get_stack(
            ctx,
            (&raw mut kill.asker_stack).cast(),
            (OOM_KERNEL_FRAMES * size_of::<u64>()) as u32,
            0,
        )
    };
    if bytes > 0 {
        kill.asker_frames = bytes as u32 / size_of::<u64>() as u32;
    } else {
        note(kill, OomKillField::AskerStack, OomSource::Unreadable);
    }
}

/// Whether the function that kills is among the asker's callers. A task that is exiting anyway is
/// marked as a victim too, and is none: nobody killed it for memory.
#[inline(always)]
fn is_kill(kill: &OomKill) -> bool {
    let (begin, end) = (oom_config!(killer_begin), oom_config!(killer_end));
    begin == 0 || kill.asker_frames == 0 || is_called(kill, begin, end)
}

/// Whether the function that lies there is among the asker's callers.
#[inline(always)]
fn is_called(kill: &OomKill, begin: u64, end: u64) -> bool {
    let mut found = false;
    for frame in 0..NEAR {
        found |= kill.asker_stack[frame].wrapping_sub(begin) < end.wrapping_sub(begin);
    }
    found
}
