//! Guest memory, laid out at the cap of its function.
//!
//! That of a fresh machine is a file of its own in memory. That of a restored one is the snapshot's
//! file, mapped privately and never populated: each machine has only the pages that it writes for
//! itself.

use std::fs::File;
use std::io;
use std::sync::Arc;

use hearth_runtime::snapshot::{SnapshotError, write_memory};
use rustix::fs::{MemfdFlags, SealFlags, SeekFrom};
use vm_memory::mmap::MmapRegionBuilder;
use vm_memory::{
    Bytes as _, FileOffset, GuestAddress, GuestMemoryBackend as _, GuestMemoryMmap,
    GuestMemoryRegion as _, GuestRegionMmap,
};

/// Smallest unit of memory.
const PAGE: usize = 4096;
/// Bytes that are looked at together when memory is saved.
const STEP: usize = 64 * PAGE;

/// First address that is not memory, where there is more than this; registers of devices are there.
pub const HOLE: u64 = 0xc000_0000;
/// First address behind them.
pub const BEHIND_HOLE: u64 = 0x1_0000_0000;
/// Most bytes that a machine can have.
pub const MOST: u64 = 64 << 30;

/// Why there is no such memory.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// Not a size that a machine can have.
    #[error("memory of {0} bytes: must be whole pages of {PAGE} bytes, at most {MOST} bytes")]
    Size(u64),
    /// The file is not that of such a machine.
    #[error("the memory file has {found} bytes, and the machine {size}: it is not whole")]
    File {
        /// Bytes of the machine.
        size: u64,
        /// Bytes of the file.
        found: u64,
    },
    /// A file to save it to is not empty.
    #[error("the file for the memory has {0} bytes already: it must be a new one")]
    NotNew(u64),
    /// It cannot be written.
    #[error(transparent)]
    Save(#[from] SnapshotError),
    /// The kernel does not do it.
    #[error("{0}: {1}")]
    Kernel(&'static str, #[source] io::Error),
    /// It cannot be mapped.
    #[error("memory cannot be mapped: {0}")]
    Map(String),
}

/// What a machine has for memory.
pub struct Memory {
    guest: GuestMemoryMmap,
    size: u64,
    /// The file in memory, where there is no snapshot behind it.
    fresh: Option<Arc<File>>,
}

impl Memory {
    /// Of a machine that boots: all zeroes.
    pub fn fresh(size: u64) -> Result<Self, MemoryError> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = rustix::fs::memfd_create("hearth-guest-memory", flags)
            .map(File::from)
            .map_err(|error| MemoryError::Kernel("a file in memory", error.into()))?;
        file.set_len(size)
            .map_err(|error| MemoryError::Kernel("the size of the guest's memory", error))?;
        // Nobody makes it shorter while it is mapped.
        let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
        rustix::fs::fcntl_add_seals(&file, seals)
            .map_err(|error| MemoryError::Kernel("sealing the guest's memory", error.into()))?;
        let file = Arc::new(file);
        let guest = map(&file, size, libc::MAP_SHARED)?;
        Ok(Self {
            guest,
            size,
            fresh: Some(file),
        })
    }

    /// Of a machine that is restored: what the file has, and what is written is this machine's alone.
    pub fn restored(file: File, size: u64) -> Result<Self, MemoryError> {
        let found = file
            .metadata()
            .map_err(|error| MemoryError::Kernel("the memory file", error))?
            .len();
        if found != size {
            return Err(MemoryError::File { size, found });
        }
        Ok(Self {
            guest: map(&Arc::new(file), size, libc::MAP_PRIVATE)?,
            size,
            fresh: None,
        })
    }

    /// As devices read and write it.
    #[must_use]
    pub fn guest(&self) -> &GuestMemoryMmap {
        &self.guest
    }

    /// Bytes of it.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Writes it to a new file, with holes for pages that are all zeroes. The machine stands still.
    pub fn save(&self, to: &File) -> Result<(), MemoryError> {
        let written = |error| MemoryError::Kernel("saving the guest's memory", error);
        let there = to.metadata().map_err(written)?.len();
        if there != 0 {
            return Err(MemoryError::NotNew(there));
        }
        to.set_len(self.size).map_err(written)?;
        let mut bytes = vec![0; STEP];
        let mut at = 0;
        while let Some((start, end)) = self.written_after(at).map_err(written)? {
            at = start;
            while at < end {
                let length = usize::try_from(end - at).map_or(STEP, |left| left.min(STEP));
                let bytes = &mut bytes[..length];
                self.read_from_file_offset(at, bytes)
                    .map_err(|error| MemoryError::Map(error.to_string()))?;
                write_memory(to, at, bytes)?;
                at += length as u64;
            }
        }
        Ok(())
    }

    /// The first range of the file behind `at` that can be other than zeroes.
    fn written_after(&self, at: u64) -> io::Result<Option<(u64, u64)>> {
        if at >= self.size {
            return Ok(None);
        }
        let Some(file) = &self.fresh else {
            return Ok(Some((at, self.size)));
        };
        let start = match rustix::fs::seek(file, SeekFrom::Data(at)) {
            Err(rustix::io::Errno::NXIO) => return Ok(None),
            start => start?,
        };
        let end = rustix::fs::seek(file, SeekFrom::Hole(start))?;
        Ok(Some((start, end)))
    }

    /// Reads what is, or would be, at this offset of the file. Its pages are the guest's, in the order of their
    /// addresses.
    fn read_from_file_offset(
        &self,
        offset: u64,
        bytes: &mut [u8],
    ) -> Result<(), vm_memory::GuestMemoryError> {
        let below = usize::try_from(HOLE.saturating_sub(offset)).unwrap_or(usize::MAX);
        let (low, high) = bytes.split_at_mut(below.min(bytes.len()));
        if !low.is_empty() {
            self.guest.read_slice(low, GuestAddress(offset))?;
        }
        if !high.is_empty() {
            let address = offset + low.len() as u64 - HOLE + BEHIND_HOLE;
            self.guest.read_slice(high, GuestAddress(address))?;
        }
        Ok(())
    }
}

/// Where memory of such a size is: first address and bytes of each range.
fn ranges(size: u64) -> impl Iterator<Item = (u64, u64)> {
    let low = size.min(HOLE);
    [(0, low), (BEHIND_HOLE, size - low)]
        .into_iter()
        .filter(|(_, length)| *length > 0)
}

fn map(file: &Arc<File>, size: u64, shared: i32) -> Result<GuestMemoryMmap, MemoryError> {
    if size == 0 || size > MOST || !size.is_multiple_of(PAGE as u64) {
        return Err(MemoryError::Size(size));
    }
    let mut offset = 0;
    let mut regions = Vec::new();
    for (address, length) in ranges(size) {
        let bytes = usize::try_from(length).map_err(|_| MemoryError::Size(size))?;
        let mapped = MmapRegionBuilder::new(bytes)
            .with_mmap_prot(libc::PROT_READ | libc::PROT_WRITE)
            .with_mmap_flags(shared | libc::MAP_NORESERVE)
            .with_file_offset(FileOffset::from_arc(Arc::clone(file), offset))
            .build()
            .map_err(|error| MemoryError::Map(error.to_string()))?;
        let region = GuestRegionMmap::new(mapped, GuestAddress(address));
        regions.push(region.ok_or(MemoryError::Size(size))?);
        offset += length;
    }
    GuestMemoryMmap::from_regions(regions).map_err(|error| MemoryError::Map(error.to_string()))
}

/// Where each range of it is in this process: the guest's address, bytes, and the address here.
pub(crate) fn slots(memory: &GuestMemoryMmap) -> impl Iterator<Item = (u64, u64, u64)> {
    memory.iter().map(|region| {
        let here = region.as_ptr() as u64;
        (region.start_addr().0, region.len(), here)
    })
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    fn fill(memory: &Memory, address: u64, byte: u8) {
        let page = [byte; PAGE];
        memory
            .guest
            .write_slice(&page, GuestAddress(address))
            .unwrap();
    }

    fn byte(memory: &Memory, address: u64) -> u8 {
        memory.guest.read_obj(GuestAddress(address)).unwrap()
    }

    #[test]
    fn what_was_saved_is_restored_and_what_was_not_written_takes_no_room() {
        let size = 64 << 20;
        let memory = Memory::fresh(size).unwrap();
        for (address, value) in [(0, 1), (0x10_0000, 2), (size - 0x1000, 3)] {
            fill(&memory, address, value);
        }
        // Written, but zeroes.
        fill(&memory, 0x20_0000, 0);
        let file = tempfile::tempfile().unwrap();
        memory.save(&file).unwrap();
        assert_eq!(file.metadata().unwrap().len(), size);
        let most = 16 * PAGE as u64;
        assert!(file.metadata().unwrap().blocks() * 512 <= most);

        let one = Memory::restored(file.try_clone().unwrap(), size).unwrap();
        let other = Memory::restored(file.try_clone().unwrap(), size).unwrap();
        let at = [0, 0x10_0000, size - 1, 0x20_0000].map(|at| byte(&one, at));
        assert_eq!(at, [1, 2, 3, 0]);
        fill(&one, 0x10_0000, 7);
        assert_eq!((byte(&one, 0x10_0000), byte(&other, 0x10_0000)), (7, 2));

        // What is private is saved, too.
        let second = tempfile::tempfile().unwrap();
        one.save(&second).unwrap();
        let again = Memory::restored(second, size).unwrap();
        assert_eq!(
            [0, 0x10_0000, size - 1].map(|at| byte(&again, at)),
            [1, 7, 3]
        );
    }

    #[test]
    fn memory_behind_the_hole_is_saved_with_the_rest() {
        let size = HOLE + (16 << 20);
        let memory = Memory::fresh(size).unwrap();
        fill(&memory, HOLE - 0x1000, 5);
        fill(&memory, BEHIND_HOLE, 6);
        let end = BEHIND_HOLE + (16 << 20) - 0x1000;
        fill(&memory, end, 7);
        let file = tempfile::tempfile().unwrap();
        memory.save(&file).unwrap();
        let restored = Memory::restored(file, size).unwrap();
        assert_eq!(
            [HOLE - 1, BEHIND_HOLE, end].map(|at| byte(&restored, at)),
            [5, 6, 7]
        );
        assert!(restored.guest.read_obj::<u8>(GuestAddress(HOLE)).is_err());
    }

    #[test]
    fn a_file_that_is_not_whole_is_refused_by_its_size() {
        let file = tempfile::tempfile().unwrap();
        file.set_len((1 << 20) - 0x1000).unwrap();
        let error = Memory::restored(file, 1 << 20).err().unwrap();
        assert!(
            matches!(
                error,
                MemoryError::File {
                    size: 0x10_0000,
                    found: 0xf_f000
                }
            ),
            "{error}"
        );
        for size in [0, 1, 0x1800, MOST + 0x1000] {
            assert!(
                matches!(Memory::fresh(size), Err(MemoryError::Size(_))),
                "{size}"
            );
        }
        let file = tempfile::tempfile().unwrap();
        file.set_len(1).unwrap();
        let saved = Memory::fresh(0x1000).unwrap().save(&file);
        assert!(matches!(saved, Err(MemoryError::NotNew(1))));
    }
}
