//! What user space tells the programs of this signal, before they count and meanwhile.

use aya_ebpf::{macros::map, maps::Array};
use hearth_abi::LockSettings;

#[map]
static LOCK_SETTINGS: Array<LockSettings> = Array::with_max_entries(1, 0);

/// The settings now.
#[inline(always)]
pub fn get() -> Option<&'static LockSettings> {
    LOCK_SETTINGS.get(0)
}
