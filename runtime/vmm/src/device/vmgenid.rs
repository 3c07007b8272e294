//! The generation id: sixteen bytes that are others in each life of a guest.
//!
//! A kernel that knows of it (Linux from 5.18, where its driver was compiled: Debian 13's cloud kernel
//! has it, Debian 12's has not) reseeds its random numbers when it changes. It is one half of a
//! restored guest's new identity: `hearth-init` reseeds too, whatever the kernel, and says so.

use vm_memory::{Bytes as _, GuestAddress};

use super::line::Line;
use super::virtio::Memory;

/// Bytes of an id.
pub const LENGTH: usize = 16;

/// Where it is in the guest's memory, and how the guest is told.
#[derive(Debug)]
pub struct GenerationId {
    address: GuestAddress,
    line: Line,
}

/// The place of the id is no memory.
#[derive(Debug, thiserror::Error)]
#[error("generation id at {address:#x}: {error}; is this the memory of another guest?")]
pub struct NoPlace {
    address: u64,
    error: vm_memory::GuestMemoryError,
}

impl GenerationId {
    /// At this place, eight bytes aligned and reserved; ACPI told the guest of both.
    #[must_use]
    pub fn new(address: GuestAddress, line: Line) -> Self {
        Self { address, line }
    }

    /// The line that it raises, for who connects it.
    #[must_use]
    pub fn line(&self) -> &Line {
        &self.line
    }

    /// A new life begins. The first instruction of a restored guest sees the id; its kernel hears of
    /// it as soon as it takes interrupts.
    pub fn renew(&self, memory: &Memory, id: [u8; LENGTH]) -> Result<(), NoPlace> {
        let written = memory.write_slice(&id, self.address);
        written.map_err(|error| NoPlace {
            address: self.address.0,
            error,
        })?;
        self.line.raise();
        Ok(())
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn the_guest_finds_the_new_id_and_is_told() {
        let memory = Memory::from_ranges(&[(GuestAddress(0), 0x1000)]).unwrap();
        let id = GenerationId::new(GuestAddress(0x800), Line::new().unwrap());
        id.renew(&memory, [7; LENGTH]).unwrap();
        let read: [u8; LENGTH] = memory.read_obj(GuestAddress(0x800)).unwrap();
        assert_eq!((read, id.line().descriptor().read().unwrap()), ([7; 16], 1));
        let outside = GenerationId::new(GuestAddress(0x1000), Line::new().unwrap());
        let error = outside.renew(&memory, [7; LENGTH]).unwrap_err();
        assert!(error.to_string().starts_with("generation id at 0x1000"));
    }
}
