//! Boundaries inside programs. User space chooses the addresses, so that no instruction has to
//! be single-stepped, and attaches once an inode.

use aya_ebpf::{
    EbpfContext,
    helpers::bpf_get_attach_cookie,
    macros::{map, uprobe},
    maps::LruHashMap,
    programs::ProbeContext,
};
use hearth_abi::{Fate, Kind, Probe, site};

use super::{stamp, watch};
use crate::{globals::config, ledger, ring, task::Task};

/// Images that have handed over to user code, by tgid (and whether that was provisional).
#[map]
static HANDED_OVER: LruHashMap<u64, u64> = LruHashMap::with_max_entries(8192, 0);

/// `__libc_start_main(main, argc, argv, ...)`, or the ELF entry of a static program.
#[uprobe]
fn entry(ctx: ProbeContext) -> u32 {
    ledger::account(Probe::Entry, || passed(&ctx, Kind::Entry));
    0
}

/// `main`, `main.main`, or a runtime's own symbol.
#[uprobe]
fn main_reached(ctx: ProbeContext) -> u32 {
    ledger::account(Probe::Main, || passed(&ctx, Kind::Main));
    0
}

/// The uprobe of a ready rule.
#[uprobe]
fn user_probe(ctx: ProbeContext) -> u32 {
    ledger::account(Probe::UserProbe, || passed(&ctx, Kind::UserProbe));
    0
}

#[inline(always)]
fn passed(ctx: &ProbeContext, kind: Kind) -> Fate {
    let now = stamp::now();
    let task = Task::current();
    let watched = watch::of(task.tgid());
    match &watched {
        Some(watch) if watch::is_source(watch) => return Fate::Filtered,
        None if config!(every_exec) == 0 => return Fate::Filtered,
        _ => {}
    }
    // SAFETY: the context is that of a uprobe.
    let site = unsafe { bpf_get_attach_cookie(ctx.as_ptr()) };
    // The address space stands for the image: an exec makes a new one.
    let image = task.mm().raw();
    if matches!(kind, Kind::Main) && is_again(task.tgid(), site, image) {
        return Fate::Filtered;
    }
    let first: u64 = ctx.arg(0).unwrap_or(0);
    // SAFETY: the context of a uprobe is a pt_regs of the kernel's own.
    let ip = unsafe { (*ctx.as_ptr().cast::<aya_ebpf::bindings::pt_regs>()).rip };
    ring::mark(|mark| stamp::fill(mark, kind, now, task, watched, [ip, first, site]))
}

/// A new image: whatever address its memory map has, it has handed over nothing yet.
#[inline(always)]
pub fn forget(tgid: u32) {
    let _ = HANDED_OVER.remove(u64::from(tgid));
    let _ = HANDED_OVER.remove(u64::from(tgid) | site::PROVISIONAL << 32);
}

/// Whether this image of the process has been here before: some functions by which a runtime
/// hands over to user code are used again later.
#[inline(always)]
fn is_again(tgid: u32, site: u64, image: u64) -> bool {
    let key = u64::from(tgid) | (site & site::PROVISIONAL) << 32;
    // SAFETY: the value is copied at once.
    if unsafe { HANDED_OVER.get(key) } == Some(&image) {
        return true;
    }
    // When this fails the next hit is published too, and user space takes the first.
    let _ = HANDED_OVER.insert(key, image, 0);
    false
}
