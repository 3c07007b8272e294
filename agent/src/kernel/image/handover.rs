//! Which functions of which files mark the boundaries of a program.

use std::path::Path;

use super::elf::{Elf, Symbol};
use super::instruction::{self, Argument};
use super::libraries::{self, Library, file_name};
use super::runtimes::{HOMES, Home, LIBC_FILES, LIBC_START, Way};
use super::site::{self, Boundary, Wanted};
use super::{ImageError, Root, Runtime, Site, Target, gopclntab, rust};

/// Libraries of one runtime that are searched: more than one `libpython` means nothing good.
const MAX_CANDIDATES: usize = 2;

/// What was found out about a program.
pub(super) struct Found {
    pub(super) runtime: Runtime,
    pub(super) wanted: Vec<Wanted>,
}

/// The functions that mark the boundaries of `program`.
pub(super) fn boundaries(root: &Root, program: &Elf, notes: &mut Vec<String>) -> Found {
    let mut wanted = Vec::new();
    if gopclntab::is_go(program) {
        wanted.extend(entry(program, Runtime::Go, notes));
        match gopclntab::main(program) {
            Ok(main) => note(notes, main_of(program, &main, Runtime::Go), &mut wanted),
            Err(why) => notes.push(why),
        }
        return Found {
            runtime: Runtime::Go,
            wanted,
        };
    }
    let plain = if program.interpreter().is_some() {
        Runtime::Libc
    } else {
        Runtime::Static
    };
    let loaded = match plain {
        Runtime::Libc => libraries::closure(root, program, notes),
        _ => Vec::new(),
    };
    match plain {
        Runtime::Libc => libc_start(program, &loaded, notes, &mut wanted),
        _ => wanted.extend(entry(program, plain, notes)),
    }
    if let Some((home, ways)) = runtime(root, program, &loaded, notes) {
        wanted.extend(ways);
        return Found {
            runtime: home.runtime,
            wanted,
        };
    }
    match main(program, plain, notes) {
        Ok(Some(main)) => wanted.push(main),
        Ok(None) => notes.push(format!(
            "{}: main has no symbol and _start does not tell it; it is learnt from the first \
             argument of {LIBC_START} at the first start",
            program.target().shown().display(),
        )),
        Err(error) => notes.push(error.to_string()),
    }
    Found {
        runtime: plain,
        wanted,
    }
}

/// The site of C `main`, learnt at run time: `address` is the first argument of
/// `__libc_start_main`, and `start_code` is where the kernel says that the code of the program
/// begins (`mm->start_code`; the `Exec` mark's third argument), both in the process's memory.
///
/// The names of a stripped program are gone, so a Rust program's site is that of the C `main`
/// which the compiler makes, some microseconds before the user's.
pub fn main_site_from_address(
    program: &Target,
    start_code: u64,
    address: u64,
    allow_single_step: bool,
) -> Result<Site, LearnError> {
    let image = Elf::open(program.clone())?;
    let base = image
        .start_code()
        .and_then(|linked| start_code.checked_sub(linked))
        .ok_or(LearnError::StartCode(start_code))?;
    let linked = address
        .checked_sub(base)
        .filter(|linked| image.is_code(*linked));
    let linked = linked.ok_or(LearnError::Address {
        address,
        start_code,
    })?;
    let runtime = if image.interpreter().is_some() {
        Runtime::Libc
    } else {
        Runtime::Static
    };
    let wanted = Wanted::new(&image, ("main", linked, 0), Boundary::Main, runtime)?;
    site::choose(&wanted, allow_single_step).map_err(LearnError::NoSite)
}

/// Why an address seen at run time gives no site.
#[derive(Debug, thiserror::Error)]
pub enum LearnError {
    /// The file cannot be read.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// Not where this file's code can have been loaded.
    #[error("start_code {0:#x} is below the address that the file's code is linked at")]
    StartCode(u64),
    /// Code of another file: a wrapper passed its own function.
    #[error("address {address:#x} is not code of the file loaded at {start_code:#x}")]
    Address {
        /// The address.
        address: u64,
        /// Where the file's code was said to be.
        start_code: u64,
    },
    /// No instruction that may be probed.
    #[error("{0}")]
    NoSite(String),
}

fn note(notes: &mut Vec<String>, found: Result<Wanted, ImageError>, wanted: &mut Vec<Wanted>) {
    match found {
        Ok(found) => wanted.push(found),
        Err(error) => notes.push(error.to_string()),
    }
}

fn entry(program: &Elf, runtime: Runtime, notes: &mut Vec<String>) -> Option<Wanted> {
    let what = ("ELF entry", program.entry(), 0);
    Wanted::new(program, what, Boundary::Entry, runtime)
        .map_err(|error| notes.push(error.to_string()))
        .ok()
}

fn main_of(program: &Elf, main: &Symbol, runtime: Runtime) -> Result<Wanted, ImageError> {
    Wanted::new(
        program,
        (&main.name, main.address, main.size),
        Boundary::Main,
        runtime,
    )
}

/// `__libc_start_main` of whichever loaded file is the C library.
fn libc_start(
    program: &Elf,
    loaded: &[Library],
    notes: &mut Vec<String>,
    wanted: &mut Vec<Wanted>,
) {
    let libc = loaded.iter().find(|library| library.is_named(LIBC_FILES));
    let Some(Library { image: libc, .. }) = libc else {
        notes.push(format!(
            "{}: no C library among what it is linked with; its ELF entry is used",
            program.target().shown().display(),
        ));
        wanted.extend(entry(program, Runtime::Libc, notes));
        return;
    };
    match first(libc, LIBC_START) {
        Ok(Some(start)) => {
            let what = (start.name.as_str(), start.address, start.size);
            match Wanted::new(libc, what, Boundary::Entry, Runtime::Libc) {
                Ok(found) => wanted.push(Wanted {
                    main_in_rdi: true,
                    ..found
                }),
                Err(error) => notes.push(error.to_string()),
            }
        }
        Ok(None) => {
            notes.push(format!(
                "{}: no {LIBC_START}",
                libc.target().shown().display()
            ));
        }
        Err(error) => notes.push(error.to_string()),
    }
}

fn first(image: &Elf, wanted: &str) -> Result<Option<Symbol>, ImageError> {
    let mut found = None;
    image.functions(&[wanted], |name, address, size| {
        if name == wanted && image.is_code(address) {
            found = Some(Symbol {
                name: name.to_owned(),
                address,
                size,
            });
        }
        found.is_none()
    })?;
    Ok(found)
}

/// The runtime that the program is or is linked with, and its ways into user code.
fn runtime(
    root: &Root,
    program: &Elf,
    loaded: &[Library],
    notes: &mut Vec<String>,
) -> Option<(&'static Home, Vec<Wanted>)> {
    for home in HOMES {
        let mut candidates: Vec<&Elf> = Vec::new();
        let name = file_name(program.target().path());
        if home
            .executables
            .iter()
            .any(|beginning| name.starts_with(beginning))
        {
            candidates.push(program);
        }
        let libraries = loaded
            .iter()
            .filter(|library| library.is_named(home.libraries));
        candidates.extend(libraries.take(MAX_CANDIDATES).map(|library| &library.image));
        let later = beside(root, loaded, home);
        candidates.extend(&later);
        for image in candidates {
            let ways = ways(image, home, notes);
            if ways.iter().any(|way| !way.provisional) {
                return Some((home, ways));
            }
        }
    }
    None
}

/// The runtime's library that the program will load by itself.
fn beside(root: &Root, loaded: &[Library], home: &Home) -> Option<Elf> {
    let (library, paths) = home.beside?;
    let launcher = loaded.iter().find(|loaded| loaded.is_named(&[library]))?;
    let directory = launcher.image.target().path().parent()?;
    paths.iter().find_map(|path| {
        let path = directory.join(Path::new(path));
        root.open(&path).and_then(Elf::open).ok()
    })
}

fn ways(image: &Elf, home: &Home, notes: &mut Vec<String>) -> Vec<Wanted> {
    // One pass over the symbols for all ways; of each way the best symbol.
    let mut best: Vec<Option<(usize, Symbol)>> = vec![None; home.ways.len()];
    let symbols = home.ways.iter().flat_map(|way| way.symbols);
    let beginnings: Vec<&str> = symbols.map(|symbol| symbol.beginning()).collect();
    let scan = image.functions(&beginnings, |name, address, size| {
        for (way, best) in home.ways.iter().zip(&mut best) {
            let rank = way.symbols.iter().position(|symbol| symbol.fits(name));
            let Some(rank) = rank.filter(|_| image.is_code(address)) else {
                continue;
            };
            if best.as_ref().is_none_or(|(known, _)| rank < *known) {
                *best = Some((
                    rank,
                    Symbol {
                        name: name.to_owned(),
                        address,
                        size,
                    },
                ));
            }
        }
        best.iter()
            .any(|best| best.as_ref().is_none_or(|(rank, _)| *rank > 0))
    });
    if let Err(error) = scan {
        notes.push(error.to_string());
    }
    let mut wanted = Vec::new();
    for (Way { provisional, .. }, best) in home.ways.iter().zip(best) {
        let Some((_, symbol)) = best else { continue };
        match main_of(image, &symbol, home.runtime) {
            Ok(found) => wanted.push(Wanted {
                provisional: *provisional,
                ..found
            }),
            Err(error) => notes.push(error.to_string()),
        }
    }
    wanted
}

/// The program's own `main`: the user's of a Rust program, else the C one.
fn main(
    program: &Elf,
    runtime: Runtime,
    notes: &mut Vec<String>,
) -> Result<Option<Wanted>, ImageError> {
    let mut c_main = None;
    let mut rust = rust::Functions::default();
    program.functions(&["main", "_ZN", "_R"], |name, address, size| {
        let symbol = || Symbol {
            name: name.to_owned(),
            address,
            size,
        };
        if name == "main" {
            c_main = Some(symbol());
        } else {
            rust.take(name, symbol);
        }
        true
    })?;
    let Some(c_main) = c_main.or_else(|| main_from_start(program)) else {
        return Ok(None);
    };
    let c = main_of(program, &c_main, runtime)?;
    let Some((user, before)) = rust.main(program, &c, notes) else {
        return Ok(Some(c));
    };
    let mut user = main_of(program, user, runtime)?;
    let before = before
        .map(|symbol| main_of(program, symbol, runtime))
        .transpose()?;
    user.before = before.into_iter().chain([c]).collect();
    Ok(Some(user))
}

/// `main` as glibc's `_start` passes it on: a stripped program keeps that much.
fn main_from_start(program: &Elf) -> Option<Symbol> {
    let start = program.code(program.entry(), 0).ok()?;
    let argument = match instruction::first_argument(&start, program.entry())? {
        // musl's `_start` leaves that to a function of its own.
        Argument::Unknown(next) => instruction::first_argument(&program.code(next, 0).ok()?, next)?,
        known => known,
    };
    let address = match argument {
        Argument::Value(address) => address,
        Argument::At(slot) => program
            .relative_relocation(slot)
            .or_else(|| program.word(slot))?,
        Argument::Unknown(_) => return None,
    };
    let main = Symbol {
        name: "main".to_owned(),
        address,
        size: 0,
    };
    program.is_code(address).then_some(main)
}
