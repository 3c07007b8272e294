//! From a wanted address to the place of a uprobe.

use super::elf::Elf;
use super::instruction::{self, Keep};
use super::{FileId, ImageError, Runtime, Target};

/// A boundary of the start that passes at a site.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Boundary {
    /// The program's entry: the end of `link`.
    Entry,
    /// The hand-over to user code: the end of `runtime_init`.
    Main,
}

/// How the kernel runs the instruction under the probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Emulated: about 0.6 us a hit.
    Emulated,
    /// Single-stepped: about 10 us a hit.
    SingleStep,
}

/// Where one uprobe goes. The first hit of a process counts; later ones mean nothing.
#[derive(Clone, Debug)]
pub struct Site {
    /// The file, held open: attach by [`Target::attach_path`].
    pub file: Target,
    /// Its inode.
    pub id: FileId,
    /// Offset in the file, in bytes.
    pub offset: u64,
    /// The function whose start is meant.
    pub symbol: String,
    /// Bytes from the function's start to the probed instruction.
    pub delay: u64,
    /// How the kernel runs the instruction.
    pub step: Step,
    /// What passes here.
    pub what: Boundary,
    /// Whose function it is.
    pub runtime: Runtime,
    /// Reached on every way to user code, but early: a later hit of a site of the same
    /// boundary that is not provisional replaces this one's.
    pub provisional: bool,
    /// `rdi` holds the address of C `main` when the probe is hit.
    pub main_in_rdi: bool,
}

impl Site {
    /// Whether one probe serves both.
    pub(super) fn same_place(&self, other: &Self) -> bool {
        self.id == other.id && self.offset == other.offset && self.what == other.what
    }
}

/// A function that marks a boundary.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) file: Target,
    pub(super) symbol: String,
    pub(super) code: Vec<u8>,
    pub(super) address: u64,
    pub(super) offset: u64,
    pub(super) what: Boundary,
    pub(super) runtime: Runtime,
    pub(super) provisional: bool,
    pub(super) main_in_rdi: bool,
    /// Passed shortly before: taken if this function has no instruction that may be probed.
    pub(super) before: Vec<Wanted>,
}

impl Wanted {
    /// The function at `address` of `image`; `size` 0 if not known.
    pub(super) fn new(
        image: &Elf,
        (symbol, address, size): (&str, u64, u64),
        what: Boundary,
        runtime: Runtime,
    ) -> Result<Self, ImageError> {
        if !image.is_code(address) {
            return Err(image.broken("a function outside executable segments"));
        }
        let (offset, _) = image
            .place(address)
            .ok_or_else(|| image.broken("a function's place"))?;
        Ok(Self {
            file: image.target().clone(),
            symbol: symbol.to_owned(),
            code: image.code(address, size)?,
            address,
            offset,
            what,
            runtime,
            provisional: false,
            main_in_rdi: false,
            before: Vec::new(),
        })
    }

    fn site(&self, delay: u64, step: Step) -> Site {
        Site {
            id: self.file.original(),
            file: self.file.clone(),
            offset: self.offset + delay,
            symbol: self.symbol.clone(),
            delay,
            step,
            what: self.what,
            runtime: self.runtime,
            provisional: self.provisional,
            main_in_rdi: self.main_in_rdi,
        }
    }
}

/// Chooses the instruction; `Err` is a note that says why there is none that may be used.
pub(super) fn choose(wanted: &Wanted, allow_single_step: bool) -> Result<Site, String> {
    if let Some(delay) = emulated(wanted) {
        return Ok(wanted.site(delay, Step::Emulated));
    }
    if allow_single_step {
        return Ok(wanted.site(0, Step::SingleStep));
    }
    let before = wanted
        .before
        .iter()
        .find_map(|before| Some((before, emulated(before)?)));
    before.map(|(before, delay)| before.site(delay, Step::Emulated)).ok_or_else(|| {
        format!(
            "{}: no instruction near the start of {} that the kernel emulates: {:?} has no site, \
             unless single-stepping (10 us a hit) is allowed",
            wanted.file.shown().display(),
            wanted.symbol,
            wanted.what,
        )
    })
}

fn emulated(wanted: &Wanted) -> Option<u64> {
    let keep = if wanted.main_in_rdi {
        Keep::FirstArgument
    } else {
        Keep::Nothing
    };
    instruction::emulated(&wanted.code, wanted.address, keep)
}
