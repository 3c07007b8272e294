//! The parts of an ELF file that planning needs, read piece by piece with bounds.

use object::elf::{self, FileHeader64, ProgramHeader64, SectionHeader64};
use object::endian::LittleEndian as LE;
use object::pod::{self, Pod};

use super::{ImageError, Target};

mod dynamic;
mod symbols;

pub(super) use dynamic::Needs;
pub(super) use symbols::Symbol;

/// The most that one table may have: .symtab of a large program is 10 to 60 MB.
pub(super) const MAX_TABLE: u64 = 128 << 20;
/// Program and section headers looked at.
const MAX_HEADERS: u64 = 4096;
/// The most of one function that is decoded.
const MAX_CODE: u64 = 64 << 10;
/// What is read of a function whose size is not known.
const UNSIZED_CODE: u64 = 4 << 10;

/// A loaded range of the file.
#[derive(Clone, Copy, Debug)]
struct Segment {
    address: u64,
    offset: u64,
    size: u64,
    executable: bool,
}

/// One section's place.
#[derive(Clone, Debug)]
pub(super) struct Section {
    pub(super) name: String,
    pub(super) kind: u32,
    pub(super) address: u64,
    pub(super) offset: u64,
    pub(super) size: u64,
    link: u32,
}

/// An x86-64 ELF file.
#[derive(Debug)]
pub(super) struct Elf {
    target: Target,
    entry: u64,
    segments: Vec<Segment>,
    sections: Vec<Section>,
    interpreter: Option<String>,
    dynamic: Option<(u64, u64)>,
}

impl Elf {
    /// Reads the headers.
    pub(super) fn open(target: Target) -> Result<Self, ImageError> {
        let header = header(&target)?;
        let mut image = Self {
            entry: header.e_entry.get(LE),
            segments: Vec::new(),
            sections: Vec::new(),
            interpreter: None,
            dynamic: None,
            target,
        };
        let count = u64::from(header.e_phnum.get(LE));
        let programs: Vec<ProgramHeader64<LE>> = image.records(
            "program headers",
            header.e_phoff.get(LE),
            count.min(MAX_HEADERS),
        )?;
        for program in &programs {
            image.take(program)?;
        }
        // Sections are a help, not needed to run: a file whose sections are broken is planned
        // by its segments.
        image.sections = image.read_sections(&header).unwrap_or_default();
        Ok(image)
    }

    fn take(&mut self, program: &ProgramHeader64<LE>) -> Result<(), ImageError> {
        let (offset, size) = (program.p_offset.get(LE), program.p_filesz.get(LE));
        match program.p_type.get(LE) {
            elf::PT_LOAD => self.segments.push(Segment {
                address: program.p_vaddr.get(LE),
                offset,
                size,
                executable: program.p_flags.get(LE).contains(elf::PF_X),
            }),
            elf::PT_INTERP => {
                let bytes = self.bytes("program interpreter", offset, size.min(4096))?;
                self.interpreter = Some(until_nul(&bytes));
            }
            elf::PT_DYNAMIC => self.dynamic = Some((offset, size)),
            _ => {}
        }
        Ok(())
    }

    fn read_sections(&self, header: &FileHeader64<LE>) -> Result<Vec<Section>, ImageError> {
        let count = u64::from(header.e_shnum.get(LE)).min(MAX_HEADERS);
        let table: Vec<SectionHeader64<LE>> =
            self.records("section headers", header.e_shoff.get(LE), count)?;
        let names = match table.get(usize::from(header.e_shstrndx.get(LE).0)) {
            Some(section) => self.bytes(
                "section names",
                section.sh_offset.get(LE),
                section.sh_size.get(LE).min(1 << 20),
            )?,
            None => Vec::new(),
        };
        Ok(table
            .iter()
            .map(|section| Section {
                name: name_at(&names, section.sh_name.get(LE))
                    .unwrap_or_default()
                    .to_owned(),
                kind: section.sh_type.get(LE).0,
                address: section.sh_addr.get(LE),
                offset: section.sh_offset.get(LE),
                size: section.sh_size.get(LE),
                link: section.sh_link.get(LE),
            })
            .collect())
    }

    /// The file.
    pub(super) fn target(&self) -> &Target {
        &self.target
    }

    /// Address of the first instruction.
    pub(super) fn entry(&self) -> u64 {
        self.entry
    }

    /// The dynamic linker's path; `None` for a static program and most libraries.
    pub(super) fn interpreter(&self) -> Option<&str> {
        self.interpreter.as_deref()
    }

    /// The section of that name.
    pub(super) fn section(&self, name: &str) -> Option<&Section> {
        self.sections.iter().find(|section| section.name == name)
    }

    /// The section whose name ends so.
    pub(super) fn section_ending(&self, name: &str) -> Option<&Section> {
        self.sections
            .iter()
            .find(|section| section.name.ends_with(name))
    }

    /// Where the kernel says that the code begins (`mm->start_code`), as linked: the lowest
    /// address of an executable segment.
    pub(super) fn start_code(&self) -> Option<u64> {
        self.segments
            .iter()
            .filter(|segment| segment.executable)
            .map(|segment| segment.address)
            .min()
    }

    /// The eight bytes that the file holds for `address`.
    pub(super) fn word(&self, address: u64) -> Option<u64> {
        let (offset, left) = self.place(address)?;
        let mut word = [0; 8];
        (left >= 8).then_some(())?;
        self.target.read(offset, &mut word).ok()?;
        Some(u64::from_le_bytes(word))
    }

    /// Whether the address is code.
    pub(super) fn is_code(&self, address: u64) -> bool {
        self.segment(address)
            .is_some_and(|segment| segment.executable)
    }

    fn segment(&self, address: u64) -> Option<&Segment> {
        self.segments.iter().find(|segment| {
            address
                .checked_sub(segment.address)
                .is_some_and(|at| at < segment.size)
        })
    }

    /// Where the address lies in the file, and how many bytes of its segment follow.
    pub(super) fn place(&self, address: u64) -> Option<(u64, u64)> {
        let segment = self.segment(address)?;
        let within = address - segment.address;
        Some((segment.offset.checked_add(within)?, segment.size - within))
    }

    /// The code from `address` on: `size` bytes if known (not zero), never past the segment.
    pub(super) fn code(&self, address: u64, size: u64) -> Result<Vec<u8>, ImageError> {
        let (offset, left) = self
            .place(address)
            .ok_or_else(|| self.broken("an address outside every segment"))?;
        let wanted = if size == 0 {
            UNSIZED_CODE
        } else {
            size.min(MAX_CODE)
        };
        let there = self.target.len().saturating_sub(offset);
        self.bytes("code", offset, wanted.min(left).min(there))
    }

    /// Bytes of the file.
    pub(super) fn bytes(
        &self,
        what: &'static str,
        offset: u64,
        size: u64,
    ) -> Result<Vec<u8>, ImageError> {
        if size > MAX_TABLE {
            let path = self.target.shown().to_owned();
            return Err(ImageError::TooLarge {
                path,
                what,
                size,
                limit: MAX_TABLE,
            });
        }
        if offset
            .checked_add(size)
            .is_none_or(|end| end > self.target.len())
        {
            return Err(self.broken(what));
        }
        let mut buffer = vec![0; usize::try_from(size).unwrap_or(0)];
        self.target.read(offset, &mut buffer)?;
        Ok(buffer)
    }

    /// `count` records of the file.
    fn records<T: Pod>(
        &self,
        what: &'static str,
        offset: u64,
        count: u64,
    ) -> Result<Vec<T>, ImageError> {
        let size = count.saturating_mul(size_of::<T>() as u64);
        let bytes = self.bytes(what, offset, size)?;
        let slice = pod::slice_from_all_bytes::<T>(&bytes).map_err(|()| self.broken(what))?;
        Ok(slice.to_vec())
    }

    pub(super) fn broken(&self, what: &'static str) -> ImageError {
        ImageError::Broken {
            path: self.target.shown().to_owned(),
            what,
        }
    }
}

fn header(target: &Target) -> Result<FileHeader64<LE>, ImageError> {
    let path = || target.shown().to_owned();
    let mut bytes = [0; size_of::<FileHeader64<LE>>()];
    if target.len() < bytes.len() as u64 {
        return Err(ImageError::NotExecutable { path: path() });
    }
    target.read(0, &mut bytes)?;
    let Ok((header, _)) = pod::from_bytes::<FileHeader64<LE>>(&bytes) else {
        return Err(ImageError::NotExecutable { path: path() });
    };
    if header.e_ident.magic != elf::ELFMAG {
        return Err(ImageError::NotExecutable { path: path() });
    }
    let machine = header.e_machine.get(LE);
    let wide = header.e_ident.class == elf::ELFCLASS64;
    if !wide || machine != elf::EM_X86_64 || header.e_ident.data != elf::ELFDATA2LSB {
        let bits = if wide { 64 } else { 32 };
        return Err(ImageError::Machine {
            path: path(),
            machine: machine.0,
            bits,
        });
    }
    if usize::from(header.e_phentsize.get(LE)) != size_of::<ProgramHeader64<LE>>() {
        return Err(ImageError::Broken {
            path: path(),
            what: "program header size",
        });
    }
    Ok(*header)
}

/// The NUL-terminated name at `at`, if it is UTF-8.
pub(super) fn name_at(names: &[u8], at: u32) -> Option<&str> {
    let rest = names.get(usize::try_from(at).ok()?..)?;
    let end = rest.iter().position(|byte| *byte == 0)?;
    std::str::from_utf8(&rest[..end]).ok()
}

fn until_nul(bytes: &[u8]) -> String {
    let end = bytes
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}
