//! The ledger: `seen = filtered + aggregated + submitted + dropped(reason)`, per probe.

use core::intrinsics::{AtomicOrdering, atomic_xadd};

use aya_ebpf::{macros::map, maps::PerCpuArray};
use hearth_abi::{Fate, LedgerRow, PROBES, Probe};

#[map]
static LEDGER: PerCpuArray<LedgerRow> = PerCpuArray::with_max_entries(PROBES as u32, 0);

/// Counts one hit (or one wanted record) of `probe`, and what became of it. `seen` is counted
/// first and on its own: it is what is compared with the kernel's own counters.
#[inline(always)]
pub fn account(probe: Probe, work: impl FnOnce() -> Fate) {
    count(probe, Fate::Seen);
    count(probe, work());
}

/// As [`account`], for work that belongs to another probe's row; says the fate to the caller's.
#[inline(always)]
pub fn nested(probe: Probe, work: impl FnOnce() -> Fate) -> Fate {
    count(probe, Fate::Seen);
    let fate = work();
    count(probe, fate);
    fate
}

#[inline(always)]
fn count(probe: Probe, fate: Fate) {
    if let Some(row) = LEDGER.get_ptr_mut(probe as u32) {
        // SAFETY: this CPU's slot. Atomic all the same: programs of functions and of user space
        // can be preempted by others of the same row.
        unsafe {
            let count = &raw mut (*row).counts[fate as usize];
            atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(count, 1);
        }
    }
}
