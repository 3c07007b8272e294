//! Bytes to and from the host, and the address at which it takes over.

use core::arch::asm;
use core::slice;

use hearth_flat_guest::{FromGuest, ToGuest, address};

/// Bytes of the length before them.
const HEAD: usize = size_of::<u32>();

/// What the host has for the guest.
pub(crate) fn take() -> Option<ToGuest> {
    let start = address::TO_GUEST as *const u8;
    // SAFETY: these addresses are always memory. The host writes there only while the guest waits,
    // and the guest does not wait here.
    let bytes = unsafe { slice::from_raw_parts(start, address::ROOM) };
    let (length, bytes) = bytes.split_first_chunk::<HEAD>()?;
    let length = u32::from_le_bytes(*length) as usize;
    postcard::from_bytes(bytes.get(..length)?).ok()
}

/// Puts this where the host looks when the bell rings.
pub(crate) fn put(what: &FromGuest) {
    let start = address::FROM_GUEST as *mut u8;
    // SAFETY: these addresses are always memory. The host reads there only while the guest waits.
    let bytes = unsafe { slice::from_raw_parts_mut(start, address::ROOM) };
    let Some((length, bytes)) = bytes.split_first_chunk_mut::<HEAD>() else {
        return;
    };
    let written = postcard::to_slice(what, bytes).map_or(0, |written| written.len());
    *length = u32::try_from(written).unwrap_or(0).to_le_bytes();
}

/// Hands over to the host.
pub(crate) fn ring() {
    // SAFETY: the address is that of the host's device. The compiler takes it that any memory has
    // changed, as it does: the host puts its answer there.
    unsafe {
        asm!("mov dword ptr [{bell}], {bell:e}", bell = in(reg) address::DOORBELL, options(nostack));
    }
}
