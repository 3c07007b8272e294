//! The clock of every record.

use aya_ebpf::helpers::bpf_ktime_get_boot_ns;

/// Boot clock, ns.
#[inline(always)]
pub fn now() -> u64 {
    // SAFETY: always callable.
    unsafe { bpf_ktime_get_boot_ns() }
}
