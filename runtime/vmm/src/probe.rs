//! What this host's KVM can do, found out by a few instructions in a machine.
//!
//! Every KVM says that it runs machines. Some, in machines themselves, run only programs natively and
//! emulate the instructions of kernels, one after the other and not all of them: no Linux boots there.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hearth_flat_guest::address::DOORBELL;
use vm_memory::{Bytes as _, GuestAddress};

use crate::boot::flat::{self, Level};
use crate::device::Doorbell;
use crate::kvm::{Ended, Host};
use crate::machine::{Interrupts, Machine, MachineError, Stop};
use crate::memory::Memory;

const MEMORY: u64 = 2 << 20;
const CODE: u64 = 0x10_0000;

/// `mov edi, 0xd0000000; mov ecx, 100000; dec ecx; jnz` to the last; `mov [rdi], eax`.
const COUNT: [u8; 16] = [
    0xbf, 0x00, 0x00, 0x00, 0xd0, 0xb9, 0xa0, 0x86, 0x01, 0x00, 0xff, 0xc9, 0x75, 0xfc, 0x89, 0x07,
];
/// Instructions that it takes: two a round.
const COUNTED: u32 = 2 * 100_000;

/// Whoever runs fewer a second emulates them. Linux takes some thousand millions to boot.
const SLOWEST: u64 = 5_000_000;
/// Many times what it takes where it is emulated.
const PATIENCE: Duration = Duration::from_secs(10);

/// What was found out.
#[derive(Clone, Debug)]
pub struct Probe {
    /// Instructions a second, about, where programs run; with these runs the flat guest.
    pub programs: Result<u64, Obstacle>,
    /// Where kernels run; with these boots Linux.
    pub kernels: Result<u64, Obstacle>,
}

/// Why a guest does not run on this host.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Obstacle {
    /// There is no machine for it.
    #[error("{0}")]
    Machine(String),
    /// A few instructions ended it.
    #[error("a guest that counts ended: {0}")]
    Ended(Ended),
    /// They took too long.
    #[error("a guest that counts to 100,000 has not done so within {} s", PATIENCE.as_secs())]
    Hangs,
    /// It would take too long.
    #[error(
        "KVM emulates kernels here, {per_second} instructions a second: no Linux boots; a host with \
         KVM on its hardware boots it"
    )]
    Emulated {
        /// So fast.
        per_second: u64,
    },
}

impl From<MachineError> for Obstacle {
    fn from(error: MachineError) -> Self {
        Self::Machine(error.to_string())
    }
}

/// Tries it: a few milliseconds, and under a second where kernels are emulated.
#[must_use]
pub fn probe(host: &Host) -> Probe {
    Probe {
        programs: speed(host, Level::User),
        kernels: speed(host, Level::Kernel).and_then(|per_second| {
            let emulated = Obstacle::Emulated { per_second };
            (per_second >= SLOWEST)
                .then_some(per_second)
                .ok_or(emulated)
        }),
    }
}

/// Instructions a second of a machine at this level.
fn speed(host: &Host, level: Level) -> Result<u64, Obstacle> {
    let other = |error: &dyn std::error::Error| Obstacle::Machine(error.to_string());
    let memory = Memory::fresh(MEMORY).map_err(MachineError::from)?;
    let written = memory.guest().write_slice(&COUNT, GuestAddress(CODE));
    written.map_err(|error| other(&error))?;
    let mut machine = Machine::new(host, memory, Interrupts::None)?;
    flat::begin_at(host, &machine, CODE, level).map_err(|error| other(&error))?;
    let at = DOORBELL..DOORBELL + size_of::<u64>() as u64;
    let plugged = machine
        .memory_mapped()
        .insert(at, Arc::new(Mutex::new(Doorbell)));
    plugged.map_err(|error| other(&error))?;

    let begin = Instant::now();
    match machine.run(begin + PATIENCE)? {
        Stop::Rang => {}
        Stop::Deadline | Stop::Asked => return Err(Obstacle::Hangs),
        Stop::Ended(how) => return Err(Obstacle::Ended(how)),
    }
    let nanoseconds = begin.elapsed().as_nanos().max(1);
    let per_second = u128::from(COUNTED) * 1_000_000_000 / nanoseconds;
    Ok(u64::try_from(per_second).unwrap_or(u64::MAX))
}
