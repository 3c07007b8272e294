//! What is counted: by who and where to, by namespace, and altogether.

use core::intrinsics::{AtomicOrdering, atomic_xadd};

use aya_ebpf::{
    macros::map,
    maps::{LruPerCpuHashMap, PerCpuArray, PerCpuHashMap},
};
use hearth_abi::{
    FAMILY_V6, Fate, RETRANSMIT_NAMESPACES, RETRANSMIT_ROWS, RetransmitKey, RetransmitNamespace,
};

/// Segments by who and where to. What is evicted is missed in the sum, and so can be told.
#[map]
static RETRANSMITS: LruPerCpuHashMap<RetransmitKey, u64> =
    LruPerCpuHashMap::with_max_entries(RETRANSMIT_ROWS, 0);

/// Segments by namespace: nothing is evicted. User space removes namespaces that have been quiet
/// for long.
#[map]
static RETRANSMIT_TOTALS: PerCpuHashMap<RetransmitNamespace, u64> =
    PerCpuHashMap::with_max_entries(RETRANSMIT_NAMESPACES, 0);

/// Segments of the whole node: IPv4, IPv6. What is cheap to look at, to see whether there is
/// anything to read.
#[map]
static RETRANSMIT_NODE: PerCpuArray<u64> = PerCpuArray::with_max_entries(2, 0);

/// Updates only if there is no entry yet (`BPF_NOEXIST`).
const IF_NONE: u64 = 1;

/// Adds segments to all three: the rows first, so that who reads the totals first finds in the
/// rows what is in the totals.
#[inline(always)]
pub fn add(key: &RetransmitKey, segments: u64) -> Fate {
    if RETRANSMITS.get_ptr_mut(key).is_none() {
        // Another CPU may have been faster; either way there is one now.
        let _ = RETRANSMITS.insert(key, 0, IF_NONE);
    }
    let row = grow(RETRANSMITS.get_ptr_mut(key), segments);
    let namespace = RetransmitNamespace {
        netns: key.netns,
        family: key.family,
        padding: 0,
    };
    if RETRANSMIT_TOTALS.get_ptr_mut(namespace).is_none() {
        let _ = RETRANSMIT_TOTALS.insert(namespace, 0, IF_NONE);
    }
    let total = grow(RETRANSMIT_TOTALS.get_ptr_mut(namespace), segments);
    let index = u32::from(key.family == FAMILY_V6);
    grow(RETRANSMIT_NODE.get_ptr_mut(index), segments);
    if row && total {
        Fate::Aggregated
    } else {
        Fate::DroppedMap
    }
}

#[inline(always)]
fn grow(count: Option<*mut u64>, segments: u64) -> bool {
    match count {
        Some(count) => {
            // SAFETY: this CPU's value. Atomic all the same: an interrupt may count in between.
            unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(count, segments) };
            true
        }
        None => false,
    }
}
