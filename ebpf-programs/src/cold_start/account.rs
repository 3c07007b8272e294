//! Where a watched process's time goes: running, queued, io, blocked.
//!
//! A process runs if any of its threads runs, else is queued if any is runnable, else waits for
//! I/O if any does, else is blocked. Its state is one word, so that CPUs that schedule its
//! threads at the same time need no lock: whoever replaces the word owns the interval since the
//! time inside it, and adds it to the total of the state that it replaced.

use core::intrinsics::{AtomicOrdering, atomic_cxchg, atomic_xadd};

use aya_ebpf::{
    macros::map,
    maps::{Array, LruHashMap},
};
use hearth_abi::Watch;

use crate::task::Task;

/// What a thread of a watched process does.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum State {
    /// Not known yet, or ended.
    None = 0,
    /// On a CPU.
    Running = 1,
    /// Runnable.
    Queued = 2,
    /// Asleep for I/O.
    Io = 3,
    /// Asleep.
    Blocked = 4,
}

/// Threads of watched processes, by tid.
#[map]
static THREADS: LruHashMap<u32, u32> = LruHashMap::with_max_entries(16384, 0);

/// When the scheduler's tracepoints were attached, boot clock, ns; 0 while they are not.
#[map]
static SCHED_SINCE: Array<u64> = Array::with_max_entries(1, 0);

// The word: running threads, queued threads, threads in I/O, time in units of 64 ns (which
// wraps after 73 minutes; a start is open for minutes).
const RUNNING_SHIFT: u32 = 54;
const QUEUED_SHIFT: u32 = 44;
const IO_SHIFT: u32 = 36;
const TICK_SHIFT: u32 = 6;
const TICK_MASK: u64 = (1 << IO_SHIFT) - 1;
const FIELD_RUNNING: u64 = (1 << (64 - RUNNING_SHIFT)) - 1;
const FIELD_QUEUED: u64 = (1 << (RUNNING_SHIFT - QUEUED_SHIFT)) - 1;
const FIELD_IO: u64 = (1 << (QUEUED_SHIFT - IO_SHIFT)) - 1;

/// Attempts to replace the word when CPUs meet.
const ATTEMPTS: u32 = 8;

/// The word of a process with one thread.
#[inline(always)]
pub fn initial(tid: u32, state: State, now: u64) -> u64 {
    remember(tid, state);
    shifted((now >> TICK_SHIFT) & TICK_MASK, state, true)
}

/// What a task does that is not the running one.
#[inline(always)]
pub fn state_now(task: Task) -> State {
    if task.is_runnable() {
        State::Queued
    } else if task.in_iowait() {
        State::Io
    } else {
        State::Blocked
    }
}

/// A thread has ended, or its id is another's now.
#[inline(always)]
pub fn forget(tid: u32) {
    remember(tid, State::None);
}

/// An exec: one thread is left, it runs, and it has the process's id. When another thread than
/// the leader calls exec it takes that id some time before, so that what was remembered under
/// either id means nothing.
#[inline(always)]
pub fn restart(watch: &mut Watch, old_tid: u32, tid: u32, now: u64) {
    remember(old_tid, State::None);
    if remember(tid, State::Running) {
        exchange_counts(watch, now, |_| 1 << RUNNING_SHIFT);
    }
}

/// Whether the scheduler has been followed without a gap since `began_ns`.
#[inline(always)]
pub fn is_complete_since(began_ns: u64) -> bool {
    match SCHED_SINCE.get(0) {
        Some(&since) => since != 0 && since <= began_ns,
        None => false,
    }
}

/// Whether the scheduler is being followed now.
#[inline(always)]
pub fn is_followed() -> bool {
    matches!(SCHED_SINCE.get(0), Some(&since) if since != 0)
}

/// What a thread was last seen doing.
#[inline(always)]
pub fn state_of(tid: u32) -> State {
    // SAFETY: the value is copied at once.
    match unsafe { THREADS.get(tid) } {
        Some(1) => State::Running,
        Some(2) => State::Queued,
        Some(3) => State::Io,
        Some(4) => State::Blocked,
        _ => State::None,
    }
}

/// False when the map took it not.
#[inline(always)]
fn remember(tid: u32, state: State) -> bool {
    if state == State::None {
        // Gone already is as good.
        let _ = THREADS.remove(tid);
        true
    } else {
        THREADS.insert(tid, state as u32, 0).is_ok()
    }
}

/// Moves a thread to a state, and accounts the process's time up to now. False when the word
/// could not be replaced: other CPUs were faster eight times over.
#[inline(always)]
pub fn to(watch: &mut Watch, tid: u32, state: State, now: u64) -> bool {
    let from = state_of(tid);
    if from == state {
        return true;
    }
    if !remember(tid, state) {
        return false;
    }
    let replaced = replace(watch, from, state, now);
    if !replaced {
        // What is remembered is what is counted: the thread's next step sets both right.
        remember(tid, from);
    }
    replaced
}

/// Accounts the process's time up to now; false when that could not be done.
#[inline(always)]
pub fn settle(watch: &mut Watch, now: u64) -> bool {
    replace(watch, State::None, State::None, now)
}

#[inline(always)]
fn shifted(word: u64, state: State, up: bool) -> u64 {
    let (shift, field) = match state {
        State::Running => (RUNNING_SHIFT, FIELD_RUNNING),
        State::Queued => (QUEUED_SHIFT, FIELD_QUEUED),
        State::Io => (IO_SHIFT, FIELD_IO),
        State::None | State::Blocked => return word,
    };
    let count = (word >> shift) & field;
    // Saturates on both sides: a thread that was never seen must not borrow from its
    // neighbour's bits.
    if up && count < field {
        word + (1 << shift)
    } else if !up && count > 0 {
        word - (1 << shift)
    } else {
        word
    }
}

#[inline(always)]
fn replace(watch: &mut Watch, from: State, state: State, now: u64) -> bool {
    exchange_counts(watch, now, |counts| {
        shifted(shifted(counts, from, false), state, true)
    })
}

/// Puts new counts into the word, and adds the time since the old ones to the total of the state
/// that they meant.
#[inline(always)]
fn exchange_counts(watch: &mut Watch, now: u64, change: impl Fn(u64) -> u64) -> bool {
    let tick = (now >> TICK_SHIFT) & TICK_MASK;
    let word = &raw mut watch.state;
    // SAFETY: an aligned word of a map value; a stale one fails the exchange below.
    let mut old = unsafe { word.read_volatile() };
    for _ in 0..ATTEMPTS {
        let elapsed = tick.wrapping_sub(old & TICK_MASK) & TICK_MASK;
        // Another CPU's later time is already inside: nothing has elapsed for us.
        let (elapsed, stamp) = if elapsed > TICK_MASK / 2 {
            (0, old & TICK_MASK)
        } else {
            (elapsed, tick)
        };
        let counts = change(old & !TICK_MASK);
        let (seen, replaced) = exchange(word, old, counts | stamp);
        if replaced {
            let index = if old >> RUNNING_SHIFT != 0 {
                0
            } else if (old >> QUEUED_SHIFT) & FIELD_QUEUED != 0 {
                1
            } else if (old >> IO_SHIFT) & FIELD_IO != 0 {
                2
            } else {
                3
            };
            add(&raw mut watch.accounted_ns[index], elapsed << TICK_SHIFT);
            return true;
        }
        old = seen;
    }
    false
}

// `core::sync::atomic` has no read-modify-write on this target, though the machine does (v3).

#[inline(always)]
fn exchange(word: *mut u64, old: u64, new: u64) -> (u64, bool) {
    // SAFETY: an aligned word of a map value, changed by CPUs through these two functions only.
    unsafe {
        atomic_cxchg::<u64, { AtomicOrdering::SeqCst }, { AtomicOrdering::SeqCst }>(word, old, new)
    }
}

#[inline(always)]
fn add(word: *mut u64, value: u64) {
    // SAFETY: as above.
    unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::SeqCst }>(word, value) };
}
