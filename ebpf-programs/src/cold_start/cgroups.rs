//! Cgroups of the memory hierarchy: their names, and the first process in one, which opens a
//! start.

use core::ffi::c_void;

use aya_ebpf::{
    helpers::bpf_probe_read_kernel_str_bytes, macros::btf_tracepoint,
    programs::BtfTracePointContext,
};
use hearth_abi::{Fate, Kind, Opener, Part, Probe, Text};

use super::{account, stamp, syscalls, watch};
use crate::{
    globals::config,
    ledger, ring,
    task::{Cgroup, Task},
};

// cgroup_mkdir(struct cgroup *cgrp, const char *path), 4.13 and later.
#[btf_tracepoint(function = "cgroup_mkdir")]
fn cgroup_made(ctx: BtfTracePointContext) -> i32 {
    syscalls::confirm(Part::Cgroup);
    ledger::account(Probe::CgroupPath, || {
        let cgroup = Cgroup::of(ctx.arg::<*const c_void>(0));
        if !cgroup.is_of_memory() {
            return Fate::Filtered;
        }
        name(Kind::CgroupPath, cgroup.id(), ctx.arg(1))
    });
    0
}

// cgroup_rmdir(struct cgroup *cgrp, const char *path), 4.13 and later.
#[btf_tracepoint(function = "cgroup_rmdir")]
fn cgroup_gone(ctx: BtfTracePointContext) -> i32 {
    ledger::account(Probe::CgroupPath, || {
        let cgroup = Cgroup::of(ctx.arg::<*const c_void>(0));
        if !cgroup.is_of_memory() {
            return Fate::Filtered;
        }
        name(Kind::CgroupGone, cgroup.id(), core::ptr::null())
    });
    0
}

// cgroup_notify_populated(struct cgroup *cgrp, const char *path, int val), 5.3 and later: for
// the cgroup and for each ancestor that changes with it.
#[btf_tracepoint(function = "cgroup_notify_populated")]
fn cgroup_populated(ctx: BtfTracePointContext) -> i32 {
    ledger::account(Probe::CgroupPopulated, || {
        let cgroup = Cgroup::of(ctx.arg::<*const c_void>(0));
        if ctx.arg::<i32>(2) == 0 || !cgroup.is_of_memory() {
            return Fate::Filtered;
        }
        let id = cgroup.id();
        let now = stamp::now();
        if config!(cgroup_opens) != 0 {
            watch::populated(id, now);
        }
        ledger::account(Probe::CgroupPath, || name(Kind::CgroupPath, id, ctx.arg(1)));
        let task = Task::current();
        ring::mark(|mark| {
            stamp::fill(mark, Kind::CgroupPopulated, now, task, None, [id, 1, 0]);
        })
    });
    0
}

// cgroup_attach_task(struct cgroup *dst_cgrp, const char *path, struct task_struct *task, bool
// threadgroup), 4.13 and later: in the mover.
#[btf_tracepoint(function = "cgroup_attach_task")]
fn cgroup_attached(ctx: BtfTracePointContext) -> i32 {
    ledger::account(Probe::CgroupAttach, || {
        if config!(cgroup_opens) == 0 {
            return Fate::Filtered;
        }
        let cgroup = Cgroup::of(ctx.arg::<*const c_void>(0));
        let moved = Task::of(ctx.arg::<*const c_void>(2));
        let tgid = moved.tgid();
        if watch::of(tgid).is_some() || !cgroup.is_of_memory() {
            return Fate::Filtered;
        }
        let id = cgroup.id();
        let now = stamp::now();
        if !watch::take_fresh(id, now) {
            return Fate::Filtered;
        }
        let start_boottime = moved.start_boottime();
        let mover = Task::current();
        let made = watch::begin(&watch::New {
            tgid,
            start_boottime,
            id: now,
            opener: Opener::Cgroup as u32,
            ready: config!(ready),
            began_ns: now,
            tid: tgid,
            state: if mover.tgid() == tgid {
                account::State::Running
            } else {
                account::state_now(moved)
            },
            alone: false,
        });
        if !made {
            return Fate::DroppedMap;
        }
        ring::mark(|mark| {
            let args = [id, u64::from(tgid), start_boottime];
            stamp::fill(mark, Kind::CgroupAttach, now, mover, None, args);
            // SAFETY: written just now.
            unsafe { (*mark).watch = now };
        })
    });
    0
}

#[inline(always)]
fn name(kind: Kind, id: u64, path: *const u8) -> Fate {
    ring::text(|text| {
        // SAFETY: reserved memory of the ring of this size, written in whole.
        let text = unsafe {
            core::ptr::write_bytes(text.cast::<u64>(), 0, size_of::<Text>() / 8);
            &mut *text
        };
        text.kind = kind as u16;
        text.boottime_ns = stamp::now();
        text.id = id;
        if !path.is_null() {
            // SAFETY: the helper checks the address; an unreadable path stays empty.
            let _ = unsafe { bpf_probe_read_kernel_str_bytes(path, &mut text.long) };
        }
    })
}
