//! What a kernel stack says: the operation that the task is about, and who takes the lock.

use core::ffi::c_void;

use aya_ebpf::{
    helpers::{bpf_get_stack, bpf_loop},
    macros::map,
    maps::{Array, PerCpuArray},
};
use hearth_abi::{ABSENT, LOCK_FUNCTIONS as FUNCTIONS, LockFunction, Operation, lock_function};

/// Frames that are looked at.
const FRAMES: usize = 32;

/// Of the running kernel, in the order of their addresses; those behind the last begin at
/// `u64::MAX`.
#[map]
static LOCK_FUNCTIONS: Array<LockFunction> = Array::with_max_entries(FUNCTIONS, 0);

/// A stack each for programs that may interrupt each other.
#[map]
static LOCK_STACKS: PerCpuArray<[u64; FRAMES]> = PerCpuArray::with_max_entries(5, 0);

/// Which of the stacks a program uses.
#[derive(Clone, Copy)]
#[repr(u32)]
pub enum Slot {
    /// Of the tracepoints of contention.
    Contention = 0,
    /// Of functions that take a lock.
    Function = 1,
    /// Of `sched_switch`.
    Switch = 2,
    /// Of the tracepoints of rstat.
    Rstat = 3,
    /// Of the reference.
    Reference = 4,
}

/// What was found.
#[derive(Clone, Copy)]
pub struct Caller {
    /// [`Operation`]: that of the innermost function which means one.
    pub operation: u32,
    /// Bits of [`lock_function`] of the function that called one that waits for locks.
    pub takes: u32,
    /// Bits of [`lock_function`] of every function up to the operation's.
    pub means: u32,
}

struct Scan {
    slot: u32,
    /// 0: before a function that waits for locks; 1: in one; 2: behind.
    place: u32,
    caller: Caller,
}

const INSIDE: u32 = 1;
const BEHIND: u32 = 2;

/// Looks at the running task's kernel stack. `place` says whether the program itself is in a
/// function that waits for locks, so that the first one that is known is who takes it.
#[inline(never)]
pub fn caller(ctx: *mut c_void, slot: Slot) -> Caller {
    let mut scan = Scan {
        slot: slot as u32,
        place: 0,
        caller: Caller {
            operation: ABSENT,
            takes: 0,
            means: 0,
        },
    };
    if let Some(stack) = LOCK_STACKS.get_ptr_mut(slot as u32) {
        // SAFETY: the helper writes at most as many bytes as it is told, and the callback takes
        // what it is given here.
        unsafe {
            let bytes = bpf_get_stack(ctx, stack.cast(), (FRAMES * 8) as u32, 0);
            if bytes > 0 {
                let frames = (bytes as u64 / 8).min(FRAMES as u64) as u32;
                bpf_loop(frames, look as *mut c_void, (&raw mut scan).cast(), 0);
            }
        }
    }
    if scan.caller.operation == ABSENT {
        scan.caller.operation = Operation::Other as u32;
    }
    scan.caller
}

/// One frame; non-zero ends the walk.
unsafe extern "C" fn look(index: u64, scan: *mut Scan) -> u64 {
    // SAFETY: the caller's own value, alive for the whole walk.
    let scan = unsafe { &mut *scan };
    let Some(stack) = LOCK_STACKS.get_ptr(scan.slot) else {
        return 1;
    };
    let index = index as usize;
    if index >= FRAMES {
        return 1;
    }
    // SAFETY: inside of the array.
    let address = unsafe { stack.cast::<u64>().add(index).read() };
    let Some(function) = function_at(address) else {
        if scan.place == INSIDE {
            scan.place = BEHIND;
        }
        return 0;
    };
    if function.means & lock_function::WAITS != 0 {
        scan.place = INSIDE;
        return 0;
    }
    if scan.place == INSIDE {
        scan.place = BEHIND;
        scan.caller.takes = function.means;
    }
    scan.caller.means |= function.means;
    if function.operation == ABSENT {
        return 0;
    }
    scan.caller.operation = function.operation;
    1
}

/// The known function that an address lies in, by halving. Without branches: the verifier would
/// follow both sides of each. Addresses of the kernel's half differ by less than half of all.
#[inline(always)]
fn function_at(address: u64) -> Option<&'static LockFunction> {
    let mut before = 0;
    let mut step = FUNCTIONS.div_ceil(2);
    while step > 0 {
        let function = LOCK_FUNCTIONS.get(before + step - 1)?;
        let is_behind = address.wrapping_sub(function.begin) >> 63;
        before += step * (1 - is_behind as u32);
        step /= 2;
    }
    let function = LOCK_FUNCTIONS.get(before.wrapping_sub(1))?;
    (function.begin <= address && address < function.end).then_some(function)
}
