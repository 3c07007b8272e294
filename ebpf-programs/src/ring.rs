//! The ring: rare records, reserved in place, never copied twice.

use aya_ebpf::{
    bindings::{BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP},
    helpers::generated::bpf_probe_read_kernel,
    macros::map,
    maps::RingBuf,
};
use hearth_abi::{Fate, Mark, Text};

use crate::globals::config;

/// 1 MiB: ten milliseconds of the densest storm measured, several times over.
#[map]
static EVENTS: RingBuf = RingBuf::with_byte_size(1 << 20, 0);

/// 1 MiB for what is rare and large, so that a storm of marks cannot crowd it out.
#[map]
static CAPTURES: RingBuf = RingBuf::with_byte_size(1 << 20, 0);

/// Reserves a rare record, lets `fill` write all of it, submits it, and wakes the reader.
#[inline(always)]
pub fn capture<T: 'static>(fill: impl FnOnce(*mut T)) -> Fate {
    let Some(mut entry) = CAPTURES.reserve::<T>(0) else {
        return Fate::DroppedRing;
    };
    fill(entry.as_mut_ptr());
    entry.submit(u64::from(BPF_RB_FORCE_WAKEUP));
    Fate::Submitted
}

/// As [`capture`], and zeroes the memory first: a reserved record holds what an earlier one left.
/// When `fill` says no, nothing is submitted.
#[inline(always)]
pub fn capture_if<T: 'static>(fill: impl FnOnce(*mut T) -> bool) -> Fate {
    let Some(mut entry) = CAPTURES.reserve::<T>(0) else {
        return Fate::DroppedRing;
    };
    // SAFETY: reserved memory of this size. What cannot be read is zero: one call for kilobytes.
    unsafe {
        bpf_probe_read_kernel(
            entry.as_mut_ptr().cast(),
            size_of::<T>() as u32,
            core::ptr::null(),
        );
    }
    if fill(entry.as_mut_ptr()) {
        entry.submit(u64::from(BPF_RB_FORCE_WAKEUP));
        Fate::Submitted
    } else {
        entry.discard(u64::from(BPF_RB_NO_WAKEUP));
        Fate::Filtered
    }
}

/// Reserves a mark, lets `fill` write all of it, and submits it.
#[inline(always)]
pub fn mark(fill: impl FnOnce(*mut Mark)) -> Fate {
    let Some(mut entry) = EVENTS.reserve::<Mark>(0) else {
        return Fate::DroppedRing;
    };
    fill(entry.as_mut_ptr());
    entry.submit(wake());
    Fate::Submitted
}

/// Reserves a text, lets `fill` write all of it, and submits it.
#[inline(always)]
pub fn text(fill: impl FnOnce(*mut Text)) -> Fate {
    let Some(mut entry) = EVENTS.reserve::<Text>(0) else {
        return Fate::DroppedRing;
    };
    fill(entry.as_mut_ptr());
    entry.submit(wake());
    Fate::Submitted
}

/// The reader comes by itself every few milliseconds; it is woken only when much is waiting.
#[inline(always)]
fn wake() -> u64 {
    if EVENTS.query(u64::from(BPF_RB_AVAIL_DATA)) >= u64::from(config!(wake_bytes)) {
        u64::from(BPF_RB_FORCE_WAKEUP)
    } else {
        u64::from(BPF_RB_NO_WAKEUP)
    }
}
