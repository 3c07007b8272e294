//! Go: `main.main`, from the symbol table or from the runtime's own function table.
//!
//! The table (`.gopclntab`) stays in a stripped binary, since the runtime needs it for stack
//! traces. Its header names the version; the layouts are those of Go 1.2, 1.16, 1.18 and 1.20.

use super::elf::{Elf, Section, Symbol};

const MAIN: &str = "main.main";
/// Functions looked at; the largest Go programs have some hundred thousand.
const MAX_FUNCTIONS: u64 = 4 << 20;

/// Whether the linker of Go made the file.
pub(super) fn is_go(program: &Elf) -> bool {
    program.section(".go.buildinfo").is_some()
        || program.section(".note.go.buildid").is_some()
        || table(program).is_some()
}

/// The function that user code begins with.
pub(super) fn main(program: &Elf) -> Result<Symbol, String> {
    let mut found = None;
    let scanned = program.functions(&[MAIN], |name, address, size| {
        if name == MAIN {
            found = Some(Symbol {
                name: name.to_owned(),
                address,
                size,
            });
        }
        found.is_none()
    });
    if let Some(main) = found {
        return Ok(main);
    }
    let from_symbols = scanned
        .err()
        .map(|error| format!(" ({error})"))
        .unwrap_or_default();
    let file = program.target().shown().display();
    let section = table(program)
        .ok_or_else(|| format!("{file}: Go, but without a function table{from_symbols}"))?;
    let bytes = program
        .bytes("Go function table", section.offset, section.size)
        .map_err(|error| error.to_string())?;
    let table = Table::parse(&bytes, |header| text_start(program, section, header))
        .ok_or_else(|| format!("{file}: a Go function table of an unknown version"))?;
    let address = table
        .address_of(MAIN)
        .filter(|address| program.is_code(*address))
        .ok_or_else(|| format!("{file}: no {MAIN} in the Go function table"))?;
    Ok(Symbol {
        name: MAIN.to_owned(),
        address,
        size: 0,
    })
}

fn table(program: &Elf) -> Option<&Section> {
    program.section_ending(".gopclntab")
}

/// Where the functions' offsets count from: `stored` in the table, but a position-independent
/// file may leave that to a relocation, and newer linkers leave it out: then it is `.text`.
fn text_start(program: &Elf, table: &Section, stored: u64) -> u64 {
    /// Of the field in the table's header.
    const TEXT_START: u64 = 8 + 2 * 8;
    if stored != 0 {
        return stored;
    }
    program
        .relative_relocation(table.address.saturating_add(TEXT_START))
        .or_else(|| program.section(".text").map(|text| text.address))
        .unwrap_or(0)
}

/// Where an entry of the function table points.
#[derive(Clone, Copy, Debug)]
enum Layout {
    /// Pairs of pointers; entries hold an address.
    Pointers,
    /// Pairs of 32-bit offsets from the start of the code.
    Offsets { text: u64 },
}

/// The parts of a function table that lead from a name to an address.
#[derive(Debug)]
struct Table<'a> {
    layout: Layout,
    count: u64,
    names: &'a [u8],
    /// The table of pairs; their second half counts from here, too.
    functions: &'a [u8],
    /// The bytes that the second half of a pair counts from.
    data: &'a [u8],
}

impl<'a> Table<'a> {
    fn parse(bytes: &'a [u8], text_start: impl Fn(u64) -> u64) -> Option<Self> {
        let magic = word32(bytes, 0)?;
        // Two zero bytes, the unit of code addresses (1 on x86), the size of a pointer.
        if bytes.get(4..8)? != [0, 0, 1, 8] {
            return None;
        }
        let field = |index: usize| word64(bytes, 8 + 8 * index);
        let from = |index: usize| bytes.get(usize::try_from(field(index)?).ok()?..);
        let count = field(0)?.min(MAX_FUNCTIONS);
        match magic {
            0xffff_fffb => Some(Self {
                layout: Layout::Pointers,
                count,
                names: bytes,
                functions: bytes.get(16..)?,
                data: bytes,
            }),
            0xffff_fffa => Some(Self {
                layout: Layout::Pointers,
                count,
                names: from(2)?,
                functions: from(6)?,
                data: from(6)?,
            }),
            0xffff_fff0 | 0xffff_fff1 => Some(Self {
                layout: Layout::Offsets {
                    text: text_start(field(2)?),
                },
                count,
                names: from(3)?,
                functions: from(7)?,
                data: from(7)?,
            }),
            _ => None,
        }
    }

    /// The address of the function of that name.
    fn address_of(&self, name: &str) -> Option<u64> {
        (0..self.count)
            .map_while(|index| self.function(index))
            .find_map(|(address, at)| {
                let rest = self.names.get(at..)?;
                let found = rest.starts_with(name.as_bytes()) && rest.get(name.len()) == Some(&0);
                found.then_some(address)?
            })
    }

    /// Address (if it makes sense) and place of the name of a function; `None` past the table.
    fn function(&self, index: u64) -> Option<(Option<u64>, usize)> {
        let index = usize::try_from(index).ok()?;
        let (address, at, name_field) = match self.layout {
            Layout::Pointers => {
                let address = word64(self.functions, index * 16)?;
                (Some(address), word64(self.functions, index * 16 + 8)?, 8)
            }
            Layout::Offsets { text } => {
                let offset = word32(self.functions, index * 8)?;
                let address = text.checked_add(u64::from(offset));
                (
                    address,
                    u64::from(word32(self.functions, index * 8 + 4)?),
                    4,
                )
            }
        };
        let record = usize::try_from(at).ok()?;
        let name = word32(self.data, record.checked_add(name_field)?)?;
        Some((address, usize::try_from(name).ok()?))
    }
}

fn word32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk::<4>()?))
}

fn word64(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk::<8>()?))
}
