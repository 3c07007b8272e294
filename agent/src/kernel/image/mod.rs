//! Where in an executable the boundaries are: file offsets for uprobes.
//!
//! [`plan`] answers, for an executable that is about to run, at which offsets of which files
//! the program's entry and the hand-over to user code pass. It reads files only: nothing is
//! mapped (a file that shrinks under a mapping kills its reader) and nothing is run.

mod build_id;
mod elf;
mod gopclntab;
mod handover;
mod instruction;
mod ld_cache;
mod libraries;
mod root;
mod runtimes;
mod rust;
mod script;
mod site;

#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use thiserror::Error;

pub use build_id::build_id;
pub use handover::main_site_from_address;
pub use root::{FileId, Root, Target};
pub use runtimes::Runtime;
pub use site::{Boundary, Site, Step};

/// What a plan is made with.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// `PATH` of the start, for `#!/usr/bin/env NAME`; the usual directories if `None`.
    pub path: Option<OsString>,
    /// Accept a site whose instruction the kernel must single-step (about 10 us a hit instead
    /// of 0.6 us) where no better one is near. Without it such a site is left out and noted.
    pub allow_single_step: bool,
}

/// The sites of one executable.
#[derive(Debug)]
pub struct Plan {
    /// The ELF file that is run in the end: the interpreter of a script, else the file itself.
    pub executable: Target,
    /// What runs the user's code.
    pub runtime: Runtime,
    /// Where to put uprobes, each place once.
    pub sites: Vec<Site>,
    /// Why a boundary has no site, or a later one than asked for.
    pub notes: Vec<String>,
}

/// Why there is no plan.
#[derive(Debug, Error)]
pub enum ImageError {
    /// The file cannot be opened or read.
    #[error("{path}: {source}")]
    Io {
        /// The file, as asked for.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A directory, device, pipe or socket.
    #[error("{path}: not a regular file, so it is not run and not read")]
    NotRegular {
        /// The file, as asked for.
        path: PathBuf,
    },
    /// Neither ELF nor a script.
    #[error("{path}: neither an ELF file nor a `#!` script")]
    NotExecutable {
        /// The file, as asked for.
        path: PathBuf,
    },
    /// An ELF file for another machine.
    #[error("{path}: ELF for machine {machine} ({bits} bit); only x86-64 is understood")]
    Machine {
        /// The file, as asked for.
        path: PathBuf,
        /// `e_machine`.
        machine: u16,
        /// Width of its class.
        bits: u8,
    },
    /// An ELF file whose tables contradict themselves or its size.
    #[error("{path}: broken ELF file: {what}")]
    Broken {
        /// The file, as asked for.
        path: PathBuf,
        /// The table and what is wrong with it.
        what: &'static str,
    },
    /// A table larger than what is read of one file.
    #[error("{path}: {what} has {size} bytes; at most {limit} are read")]
    TooLarge {
        /// The file, as asked for.
        path: PathBuf,
        /// The table.
        what: &'static str,
        /// Its size, in bytes.
        size: u64,
        /// The limit, in bytes.
        limit: u64,
    },
    /// Too many `#!` in a row, or one that names nothing.
    #[error("{path}: {what}")]
    Script {
        /// The script.
        path: PathBuf,
        /// What is wrong with its first line.
        what: String,
    },
}

/// Finds the sites of the executable `exe`, a path beneath `root`.
///
/// Follows `#!` (and `env NAME`), the program interpreter and the needed libraries as the
/// kernel and the dynamic linker would, with symbolic links resolved beneath `root`.
pub fn plan(root: &Root, exe: &Path, options: &Options) -> Result<Plan, ImageError> {
    let (target, mut notes) = script::executable(root, exe, options.path.as_deref())?;
    let image = elf::Elf::open(target)?;
    let found = handover::boundaries(root, &image, &mut notes);
    let mut sites: Vec<Site> = Vec::new();
    for wanted in found.wanted {
        match site::choose(&wanted, options.allow_single_step) {
            Ok(site) => {
                if !sites.iter().any(|other| other.same_place(&site)) {
                    sites.push(site);
                }
            }
            Err(note) => notes.push(note),
        }
    }
    Ok(Plan {
        executable: image.target().clone(),
        runtime: found.runtime,
        sites,
        notes,
    })
}
