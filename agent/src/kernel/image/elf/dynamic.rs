//! The dynamic section: which libraries a file needs, and where it wants them looked for.

use object::elf::{self, Dyn64, Rela64};
use object::endian::LittleEndian as LE;

use super::super::ImageError;
use super::{Elf, name_at};

/// Entries of a dynamic section that are looked at.
const MAX_ENTRIES: u64 = 4096;
/// Relocations that are looked at.
const MAX_RELOCATIONS: u64 = 1 << 20;
/// Length of one library's name or of one search path, in bytes.
const MAX_NAME: u64 = 4096;
/// Libraries that one file may need.
const MAX_NEEDED: usize = 512;

/// What the dynamic section says about libraries.
#[derive(Clone, Debug, Default)]
pub(in super::super) struct Needs {
    pub(in super::super) libraries: Vec<String>,
    /// `DT_RPATH`, as written; it is inherited by what this file needs.
    pub(in super::super) rpath: Option<String>,
    /// `DT_RUNPATH`, as written; where present, `DT_RPATH` does not count.
    pub(in super::super) runpath: Option<String>,
}

impl Elf {
    fn dynamic_entries(&self) -> Result<Vec<Dyn64<LE>>, ImageError> {
        let Some((offset, size)) = self.dynamic else {
            return Ok(Vec::new());
        };
        let count = (size / size_of::<Dyn64<LE>>() as u64).min(MAX_ENTRIES);
        let entries = self.records::<Dyn64<LE>>("dynamic section", offset, count)?;
        Ok(entries
            .into_iter()
            .take_while(|entry| entry.d_tag.get(LE) != elf::DT_NULL)
            .collect())
    }

    /// The libraries that this file needs.
    pub(in super::super) fn needs(&self) -> Result<Needs, ImageError> {
        let entries = self.dynamic_entries()?;
        let value = |tag| {
            entries
                .iter()
                .find(|entry| entry.d_tag.get(LE) == tag)
                .map(|entry| entry.d_val.get(LE))
        };
        let (Some(address), Some(size)) = (value(elf::DT_STRTAB), value(elf::DT_STRSZ)) else {
            return Ok(Needs::default());
        };
        let (offset, left) = self
            .place(address)
            .ok_or_else(|| self.broken("dynamic names"))?;
        let size = size.min(left);
        // A few names out of a table that may have megabytes: each is read by itself.
        let name = |at: u64| {
            let left = size.checked_sub(at)?.min(MAX_NAME);
            let bytes = self
                .bytes("dynamic names", offset.checked_add(at)?, left)
                .ok()?;
            name_at(&bytes, 0).map(str::to_owned)
        };
        Ok(Needs {
            libraries: entries
                .iter()
                .filter(|entry| entry.d_tag.get(LE) == elf::DT_NEEDED)
                .filter_map(|entry| name(entry.d_val.get(LE)))
                .take(MAX_NEEDED)
                .collect(),
            rpath: value(elf::DT_RPATH).and_then(name),
            runpath: value(elf::DT_RUNPATH).and_then(name),
        })
    }

    /// What the dynamic linker adds to the load base and stores at `address`, where a
    /// relocation says so: a position-independent file may hold zero there.
    pub(in super::super) fn relative_relocation(&self, address: u64) -> Option<u64> {
        let entries = self.dynamic_entries().ok()?;
        let value = |tag| {
            entries
                .iter()
                .find(|entry| entry.d_tag.get(LE) == tag)
                .map(|entry| entry.d_val.get(LE))
        };
        let (table, size) = (value(elf::DT_RELA)?, value(elf::DT_RELASZ)?);
        let (offset, left) = self.place(table)?;
        let count = (size.min(left) / size_of::<Rela64<LE>>() as u64).min(MAX_RELOCATIONS);
        let table = self
            .records::<Rela64<LE>>("relocations", offset, count)
            .ok()?;
        table
            .iter()
            .find(|entry| {
                entry.r_offset.get(LE) == address
                    && entry.r_type(LE, false) == elf::R_X86_64_RELATIVE
            })
            .and_then(|entry| u64::try_from(entry.r_addend.get(LE)).ok())
    }
}
