//! Values that are in vector registers, and nowhere else, while the guest waits: what a host that
//! saves it must not forget.

use core::arch::asm;
use core::arch::x86_64::__cpuid;

use hearth_flat_guest::{LANES, REGISTERS, address, folded, registers_at_first};

/// They, while the guest does not wait.
pub(crate) struct Registers {
    pub(crate) words: [[u64; LANES]; REGISTERS],
    has_avx: bool,
}

/// Loads each vector register, forgets what it was loaded from, rings, and stores each.
macro_rules! ring_keeping {
    ($words:expr, $move:literal, $kind:literal) => {
        asm!(
            ".irp i,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15",
            concat!($move, " ", $kind, "\\i, [rdx + 32 * \\i]"),
            ".endr",
            "rep stosq",
            "mov dword ptr [{bell}], {bell:e}",
            ".irp i,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15",
            concat!($move, " [rdx + 32 * \\i], ", $kind, "\\i"),
            ".endr",
            bell = in(reg) address::DOORBELL,
            in("rdx") $words,
            inout("rdi") $words => _,
            inout("rcx") LANES * REGISTERS => _,
            inout("rax") 0_u64 => _,
            clobber_abi("sysv64"),
            options(nostack),
        )
    };
}

impl Registers {
    /// Those before the first request.
    pub(crate) fn of(seed: u64) -> Self {
        Self {
            words: registers_at_first(seed),
            has_avx: has_avx(),
        }
    }

    /// Hands over to the host while they are in registers and nowhere else.
    pub(crate) fn ring(&mut self) {
        let words = self.words.as_mut_ptr();
        // SAFETY: all that is loaded, zeroed and stored is within the words: 16 registers that begin
        // 32 bytes from each other. All registers that a call may change are told as changed, and
        // any memory is. The processor has AVX where it is used.
        unsafe {
            if self.has_avx {
                ring_keeping!(words, "vmovdqu", "ymm");
            } else {
                ring_keeping!(words, "movdqu", "xmm");
            }
        }
    }

    /// Words that each keeps.
    pub(crate) fn lanes(&self) -> usize {
        if self.has_avx { LANES } else { LANES / 2 }
    }

    pub(crate) fn folded(&self) -> u64 {
        folded(&self.words, self.lanes())
    }
}

/// Whether the processor has AVX, and the host has switched it on.
fn has_avx() -> bool {
    const SWITCHED_ON: u32 = 1 << 27;
    const AVX: u32 = 1 << 28;
    const STATES: u32 = 0b110;
    if __cpuid(1).ecx & (SWITCHED_ON | AVX) != SWITCHED_ON | AVX {
        return false;
    }
    let states: u32;
    // SAFETY: there is such an instruction, as the processor has just said.
    unsafe {
        asm!("xgetbv", in("ecx") 0, out("eax") states, out("edx") _, options(nomem, nostack));
    };
    states & STATES == STATES
}
