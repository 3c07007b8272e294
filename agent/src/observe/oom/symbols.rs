//! Names of the addresses in a capture, found when it is shown.
//!
//! A mapping's file counts only if it is still the same: the inode that the kernel named, or the
//! build id that was noted when the capture was made. Otherwise the address is told as it is, as
//! an offset in the file, with the reason.

use std::collections::BTreeMap;
use std::path::Path;

use blazesym::symbolize::source::{Elf, Source};
use blazesym::symbolize::{Input, Symbolized, Symbolizer};
use serde::Serialize;

use super::address::Address;
use super::mappings;
use super::model::{Absent, Capture, Frame, Known, Mapping, NO_CODE, Reason};
use crate::kernel::image::{self, Root, Target};
use crate::kernel::symbols::kernel_names;

/// One frame, as far as it can be named.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Named {
    /// The address itself.
    pub ip: Address,
    /// File of the mapping, as the process saw it.
    pub file: Option<String>,
    /// Where in that file.
    pub file_offset: Option<Address>,
    /// Function, demangled; without parameters of templates and the like left out.
    pub function: Known<String>,
    /// How far into the function.
    pub function_offset: Option<u64>,
    /// Line of source, where the file tells it: `src/main.rs:12`.
    pub line: Option<String>,
    /// Functions that the compiler put into this one and in which the address lies, innermost
    /// first.
    pub inlined: Vec<String>,
}

/// One frame of a kernel stack.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KernelName {
    /// The address.
    pub ip: Address,
    /// `vfs_read+0x1c`.
    pub function: Known<String>,
}

/// Names the addresses of one capture.
pub struct Names<'a> {
    mappings: &'a [Mapping],
    targets: Vec<Result<Target, Absent>>,
    kernel: Result<BTreeMap<u64, Option<String>>, Absent>,
    symbolizer: Symbolizer,
}

impl std::fmt::Debug for Names<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Names").finish_non_exhaustive()
    }
}

impl<'a> Names<'a> {
    /// Opens the files that are still there. `boot_id` is this boot's: addresses of the kernel
    /// have a meaning until the next one.
    #[must_use]
    pub fn of(capture: &'a Capture, boot_id: &str) -> Self {
        Self {
            mappings: &capture.mappings,
            targets: capture.mappings.iter().map(open).collect(),
            kernel: kernel(capture, boot_id),
            symbolizer: Symbolizer::new(),
        }
    }

    /// The frames of a user stack.
    #[must_use]
    pub fn user(&self, frames: &[Frame]) -> Vec<Named> {
        let frames = frames.iter().enumerate();
        // All but the innermost are returned to: the call is before.
        frames
            .map(|(index, frame)| self.frame(frame, u64::from(index > 0)))
            .collect()
    }

    /// A frame that is returned to.
    #[must_use]
    pub fn returned_to(&self, frame: &Frame) -> Named {
        self.frame(frame, 1)
    }

    /// The frames of a kernel stack.
    #[must_use]
    pub fn kernel(&self, frames: &[Address]) -> Vec<KernelName> {
        let name = |ip: &Address| match &self.kernel {
            Ok(names) => names.get(&ip.0).cloned().flatten().map_or_else(
                || Known::absent(Reason::NotApplicable, "no symbol covers it"),
                Known::Value,
            ),
            Err(absent) => Known::Absent(absent.clone()),
        };
        frames
            .iter()
            .map(|ip| KernelName {
                ip: *ip,
                function: name(ip),
            })
            .collect()
    }

    fn frame(&self, frame: &Frame, before: u64) -> Named {
        let mut named = Named {
            ip: frame.ip,
            file: None,
            file_offset: None,
            function: Known::absent(Reason::Gone, "its mapping is not known"),
            function_offset: None,
            line: None,
            inlined: Vec::new(),
        };
        let index = match &frame.mapping {
            Known::Value(index) => usize::try_from(*index).unwrap_or(usize::MAX),
            Known::Absent(absent) => {
                named.function = Known::Absent(absent.clone());
                return named;
            }
        };
        // A capture that was made up may name a mapping that it does not have.
        let (Some(mapping), Some(target)) = (self.mappings.get(index), self.targets.get(index))
        else {
            return named;
        };
        if !mapping.vma.is_code() {
            named.function = Known::absent(Reason::NotApplicable, NO_CODE);
            return named;
        }
        let into = frame.ip.0.wrapping_sub(mapping.vma.start);
        let offset = into.wrapping_add(mapping.vma.offset);
        named.file = Some(mapping.vma.name.clone()).filter(|name| !name.is_empty());
        named.file_offset = mapping.vma.file.map(|_| Address(offset));
        match target {
            Ok(target) => self.symbolize(target, offset.wrapping_sub(before), before, &mut named),
            Err(absent) => named.function = Known::Absent(absent.clone()),
        }
        named
    }

    fn symbolize(&self, target: &Target, offset: u64, before: u64, named: &mut Named) {
        // By its open descriptor: what has its name by now may be something else.
        let source = Source::Elf(Elf::new(target.attach_path()));
        match self
            .symbolizer
            .symbolize_single(&source, Input::FileOffset(offset))
        {
            Ok(Symbolized::Sym(symbol)) => {
                named.function = Known::Value(symbol.name.into_owned());
                named.function_offset = u64::try_from(symbol.offset).ok().map(|at| at + before);
                let line = symbol.code_info.map(|info| {
                    let path = info.to_path().display().to_string();
                    info.line
                        .map_or(path.clone(), |line| format!("{path}:{line}"))
                });
                named.line = line;
                // Outermost first there.
                let inlined = symbol.inlined.iter().rev();
                named.inlined = inlined.map(|inlined| inlined.name.to_string()).collect();
            }
            Ok(Symbolized::Unknown(why)) => {
                named.function = Known::absent(Reason::NotApplicable, why.to_string());
            }
            Err(error) => named.function = Known::absent(Reason::Unreadable, error.to_string()),
        }
    }
}

/// The file of `mapping`, if it is still the same.
fn open(mapping: &Mapping) -> Result<Target, Absent> {
    let Some(file) = mapping.vma.file else {
        let what = match &*mapping.vma.name {
            "" => "no file is mapped there: it is code that the program made",
            _ => "no file is mapped there",
        };
        return Err(Absent::new(Reason::NotApplicable, what));
    };
    let path = match &mapping.path {
        Known::Value(path) => Path::new(path),
        Known::Absent(absent) => return Err(absent.clone()),
    };
    let root = Root::host().map_err(|error| Absent::new(Reason::Unreadable, error.to_string()))?;
    let target = root
        .open_through_process(path)
        .map_err(|error| Absent::new(Reason::Gone, error.to_string()))?;
    let same_build = || {
        let noted = mapping.build_id.value();
        noted.is_some() && image::build_id(&target).as_ref() == noted
    };
    if mappings::is(&target, file) || same_build() {
        return Ok(target);
    }
    let what = format!("{} is another file by now", path.display());
    Err(Absent::new(Reason::Gone, what))
}

fn kernel(capture: &Capture, boot_id: &str) -> Result<BTreeMap<u64, Option<String>>, Absent> {
    if capture.boot_id != boot_id {
        let why = "it is from another boot, when the kernel lay elsewhere";
        return Err(Absent::new(Reason::Gone, why));
    }
    let asker = capture.asker.kernel_stack.value();
    let threads = capture
        .threads
        .iter()
        .filter_map(|thread| thread.kernel_stack.value());
    let mut addresses: Vec<u64> = threads
        .chain(asker)
        .flatten()
        .map(|address| address.0)
        .collect();
    addresses.sort_unstable();
    addresses.dedup();
    let names = kernel_names(&addresses)
        .map_err(|error| Absent::new(Reason::Unreadable, error.to_string()))?;
    Ok(addresses.into_iter().zip(names).collect())
}
