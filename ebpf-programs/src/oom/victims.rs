//! Who is dying: known before the first of its threads exits.

use core::intrinsics::{AtomicOrdering, atomic_xadd};

use aya_ebpf::{bindings::BPF_NOEXIST, macros::map, maps::LruHashMap};
use hearth_abi::{Fate, OomEnd, OomRecord, OomTask, Probe};

use crate::{clock, ledger, ring, task::Task};

/// What is known of a victim while its threads exit.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Victim {
    /// Id of the capture.
    pub id: u64,
    /// Identity beside the tgid: of a number that is used again this is of another process.
    pub start_boottime: u64,
    /// Who is at a record of it now: whoever noted it, and threads that exit.
    inside: u32,
    /// Threads that a record was made for.
    recorded: u32,
    /// Threads without.
    unrecorded: u32,
    /// Whether its end was told.
    ended: u32,
}

/// By tgid. An entry outlives its process, for threads that come late; the oldest go first.
#[map]
static VICTIMS: LruHashMap<u32, Victim> = LruHashMap::with_max_entries(1024, 0);

/// Notes a victim; `None` if it was noted before. The id of its capture otherwise, which is the
/// time. Who notes one leaves it when its record is made.
#[inline(always)]
pub fn begin(task: Task) -> Option<u64> {
    let tgid = task.tgid();
    let victim = Victim {
        id: clock::now(),
        start_boottime: task.start_boottime(),
        inside: 1,
        recorded: 0,
        unrecorded: 0,
        ended: 0,
    };
    // Of two that come at once one makes the entry.
    if VICTIMS.insert(tgid, victim, BPF_NOEXIST.into()).is_ok() {
        return Some(victim.id);
    }
    if of(task).is_some() {
        return None;
    }
    let _ = VICTIMS.insert(tgid, victim, 0);
    Some(victim.id)
}

/// Takes it back: it was no kill.
#[inline(always)]
pub fn forget(task: Task) {
    let _ = VICTIMS.remove(task.tgid());
}

/// The victim that a task is a thread of.
#[inline(always)]
pub fn of(task: Task) -> Option<&'static mut Victim> {
    let victim = VICTIMS.get_ptr_mut(task.tgid())?;
    // SAFETY: a map's value; its counters are only touched atomically.
    let victim = unsafe { &mut *victim };
    (victim.start_boottime == task.start_boottime()).then_some(victim)
}

impl Victim {
    /// Counts a thread that gets a record; how many had one before it.
    #[inline(always)]
    pub fn record(&mut self) -> u32 {
        add(&raw mut self.recorded, 1)
    }

    /// The thread gets none after all.
    #[inline(always)]
    pub fn give_up(&mut self) {
        add(&raw mut self.recorded, u32::MAX);
        add(&raw mut self.unrecorded, 1);
    }

    /// A thread is about to show what it has.
    #[inline(always)]
    pub fn enter(&mut self) {
        add(&raw mut self.inside, 1);
    }

    /// A record of `task`, or of its process, is made; the last one tells the end. How many threads
    /// are to come cannot be counted: they have counted themselves out before they are seen, and go
    /// while the victim is being noted. One that has, and comes here after the last, is told after
    /// the end: who reads waits a little for such.
    #[inline(always)]
    pub fn leave(&mut self, task: Task) {
        if add(&raw mut self.inside, u32::MAX) == 1 && task.live() == 0 {
            self.end(task.tgid());
        }
    }

    /// Tells the end, once.
    #[inline(always)]
    pub fn end(&mut self, tgid: u32) {
        if add(&raw mut self.ended, 1) != 0 {
            return;
        }
        ledger::account(Probe::OomEnd, || -> Fate {
            ring::capture_if::<OomEnd>(|end| {
                // SAFETY: reserved memory of the ring of this size.
                let end = unsafe { &mut *end };
                end.kind = OomRecord::End as u16;
                end.tgid = tgid;
                end.id = self.id;
                end.boottime_ns = clock::now();
                end.start_boottime = self.start_boottime;
                end.recorded = self.recorded;
                end.unrecorded = self.unrecorded;
                true
            })
        });
    }
}

#[inline(always)]
fn add(counter: *mut u32, by: u32) -> u32 {
    // SAFETY: a member of a map's value, which other CPUs change likewise. Ordered, because LLVM
    // makes an addition without an order one that returns nothing.
    unsafe { atomic_xadd::<u32, u32, { AtomicOrdering::SeqCst }>(counter, by) }
}

/// Says who a task is.
#[inline(always)]
pub fn identify(to: &mut OomTask, task: Task) {
    to.tid = task.tid();
    to.tgid = task.tgid();
    to.start_boottime = task.start_boottime();
    to.cgroup = task.memory_cgroup().id();
    to.comm = task.comm();
}
