//! Memory of a guest without a C library.

use core::arch::asm;
use core::slice;

/// The words behind the program, where there is as much memory.
///
/// # Safety
/// Once: nothing else may use that memory.
pub(crate) unsafe fn behind_program(words: u64, memory: u64) -> Option<&'static mut [u64]> {
    const PAGE: u64 = 4096;
    unsafe extern "C" {
        /// The linker's: behind all that the program has.
        static _end: u8;
    }
    let start = ((&raw const _end) as u64).next_multiple_of(PAGE);
    let end = start.checked_add(words.checked_mul(size_of::<u64>() as u64)?)?;
    let words = usize::try_from(words).ok()?;
    // SAFETY: it is memory up to there, aligned, and all zeroes are words; nobody else uses it.
    (end <= memory).then(|| unsafe { slice::from_raw_parts_mut(start as *mut u64, words) })
}

/// What the compiler calls to copy.
///
/// # Safety
/// As in C.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, length: usize) -> *mut u8 {
    // SAFETY: the caller's word.
    unsafe {
        asm!("rep movsb", inout("rdi") to => _, inout("rsi") from => _, inout("rcx") length => _, options(nostack, preserves_flags));
    }
    to
}

/// What the compiler calls to fill.
///
/// # Safety
/// As in C.
#[unsafe(no_mangle)]
unsafe extern "C" fn memset(to: *mut u8, byte: i32, length: usize) -> *mut u8 {
    // SAFETY: the caller's word.
    unsafe {
        asm!("rep stosb", inout("rdi") to => _, in("eax") byte, inout("rcx") length => _, options(nostack, preserves_flags));
    }
    to
}
