//! How the flat guest hands over: bytes in its own memory, and an address to ring at.

use vm_memory::{Bytes as _, GuestAddress, GuestMemoryMmap};

use super::bus::{Device, Effect};

/// The address at which the guest rings. There is nothing in it to save.
pub struct Doorbell;

impl Device for Doorbell {
    fn read(&mut self, _: u64, data: &mut [u8]) {
        data.fill(0);
    }

    fn write(&mut self, _: u64, _: &[u8]) -> Effect {
        Effect::Rang
    }
}

/// Where bytes are left for the other side: their number (4 bytes), then themselves.
#[derive(Clone, Copy, Debug)]
pub struct Letterbox {
    /// The first byte.
    pub address: u64,
    /// Bytes with those of the number.
    pub room: usize,
}

/// Why bytes do not get across.
#[derive(Debug, thiserror::Error)]
pub enum LetterboxError {
    /// There are more than fit in, or the guest says that there are.
    #[error("{found} bytes are more than the {room} that there is room for")]
    Length {
        /// How many.
        found: usize,
        /// As many as there can be.
        room: usize,
    },
    /// There is no such memory.
    #[error(transparent)]
    Memory(#[from] vm_memory::GuestMemoryError),
}

impl Letterbox {
    const HEAD: usize = size_of::<u32>();

    /// Puts bytes in.
    pub fn put(self, memory: &GuestMemoryMmap, bytes: &[u8]) -> Result<(), LetterboxError> {
        let length = self.checked(bytes.len())?;
        memory.write_slice(&length.to_le_bytes(), GuestAddress(self.address))?;
        memory.write_slice(bytes, self.bytes())?;
        Ok(())
    }

    /// What the guest has put in.
    pub fn take(self, memory: &GuestMemoryMmap) -> Result<Vec<u8>, LetterboxError> {
        let length: u32 = memory.read_obj(GuestAddress(self.address))?;
        let length = usize::try_from(u32::from_le(length)).unwrap_or(usize::MAX);
        self.checked(length)?;
        let mut bytes = vec![0; length];
        memory.read_slice(&mut bytes, self.bytes())?;
        Ok(bytes)
    }

    fn bytes(self) -> GuestAddress {
        GuestAddress(self.address + Self::HEAD as u64)
    }

    fn checked(self, found: usize) -> Result<u32, LetterboxError> {
        let room = self.room.saturating_sub(Self::HEAD);
        let length = u32::try_from(found).ok().filter(|_| found <= room);
        length.ok_or(LetterboxError::Length { found, room })
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn bytes_get_across_and_a_length_that_cannot_be_does_not() {
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x2000)]).unwrap();
        let letterbox = Letterbox {
            address: 0x1000,
            room: 0x1000,
        };
        letterbox.put(&memory, b"bytes").unwrap();
        assert_eq!(letterbox.take(&memory).unwrap(), b"bytes");
        let most = vec![7; 0xffc];
        letterbox.put(&memory, &most).unwrap();
        assert_eq!(letterbox.take(&memory).unwrap(), most);
        assert!(letterbox.put(&memory, &[0; 0xffd]).is_err());
        for length in [0xffd_u32, u32::MAX] {
            memory
                .write_obj(length.to_le(), GuestAddress(0x1000))
                .unwrap();
            assert!(letterbox.take(&memory).is_err(), "{length}");
        }
    }
}
