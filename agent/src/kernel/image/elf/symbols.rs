//! Functions by name, from the two symbol tables.

use object::elf::{self, Sym64};
use object::endian::LittleEndian as LE;
use object::pod;

use super::super::ImageError;
use super::{Elf, MAX_TABLE, name_at};

/// Symbols that are looked at a time, so that a table is never held whole.
const BATCH: u64 = 8192;

/// A function defined in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Symbol {
    pub(in super::super) name: String,
    pub(in super::super) address: u64,
    /// In bytes; 0 if the table does not say.
    pub(in super::super) size: u64,
}

impl Elf {
    /// Calls `each` with every function whose name has one of the beginnings: those of the
    /// dynamic symbol table, then those of `.symtab`. Ends when `each` says `false`.
    pub(in super::super) fn functions(
        &self,
        beginnings: &[&str],
        mut each: impl FnMut(&str, u64, u64) -> bool,
    ) -> Result<(), ImageError> {
        for kind in [elf::SHT_DYNSYM.0, elf::SHT_SYMTAB.0] {
            if !self.functions_of(kind, beginnings, &mut each)? {
                break;
            }
        }
        Ok(())
    }

    fn functions_of(
        &self,
        kind: u32,
        beginnings: &[&str],
        each: &mut impl FnMut(&str, u64, u64) -> bool,
    ) -> Result<bool, ImageError> {
        let Some(table) = self.sections.iter().find(|section| section.kind == kind) else {
            return Ok(true);
        };
        let Some(strings) = self.sections.get(table.link as usize) else {
            return Err(self.broken("symbol names"));
        };
        let names = self.bytes("symbol names", strings.offset, strings.size)?;
        if table.size > MAX_TABLE {
            let path = self.target.shown().to_owned();
            let (size, limit) = (table.size, MAX_TABLE);
            return Err(ImageError::TooLarge {
                path,
                what: "symbol table",
                size,
                limit,
            });
        }
        let count = table.size / size_of::<Sym64<LE>>() as u64;
        let mut done = 0;
        while done < count {
            let batch = BATCH.min(count - done);
            let at = table
                .offset
                .saturating_add(done * size_of::<Sym64<LE>>() as u64);
            let bytes = self.bytes("symbol table", at, batch * size_of::<Sym64<LE>>() as u64)?;
            let symbols = pod::slice_from_all_bytes::<Sym64<LE>>(&bytes)
                .map_err(|()| self.broken("symbol table"))?;
            for symbol in symbols.iter().filter(|symbol| is_function(symbol)) {
                let name = symbol.st_name.get(LE);
                // Most names are not wanted: look at their beginning before their end.
                let Some(rest) = names.get(name as usize..) else {
                    continue;
                };
                if !beginnings
                    .iter()
                    .any(|beginning| rest.starts_with(beginning.as_bytes()))
                {
                    continue;
                }
                let Some(name) = name_at(&names, name) else {
                    continue;
                };
                if !each(name, symbol.st_value.get(LE), symbol.st_size.get(LE)) {
                    return Ok(false);
                }
            }
            done += batch;
        }
        Ok(true)
    }
}

/// Whether the symbol is a function (or untyped code, as assemblers leave it) defined here.
fn is_function(symbol: &Sym64<LE>) -> bool {
    let kind = symbol.st_type();
    (kind == elf::STT_FUNC || kind == elf::STT_NOTYPE)
        && symbol.st_shndx.get(LE) != elf::SHN_UNDEF
        && symbol.st_value.get(LE) != 0
}
