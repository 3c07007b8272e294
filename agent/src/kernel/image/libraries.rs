//! The files that the dynamic linker will load: the interpreter and the needed libraries.

use std::collections::HashSet;
use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use super::elf::{Elf, Needs};
use super::{Root, ld_cache};

/// Libraries that are followed for one program.
const MAX_LIBRARIES: usize = 512;
/// Directories that one search path may name.
const MAX_DIRECTORIES: usize = 64;
/// Where glibc and musl look last, by distribution.
const DEFAULT_DIRECTORIES: &[&str] = &[
    "/lib/x86_64-linux-gnu",
    "/usr/lib/x86_64-linux-gnu",
    "/lib64",
    "/usr/lib64",
    "/lib",
    "/usr/local/lib",
    "/usr/lib",
];

/// A loaded file and the name it was asked for by: the file's own may carry a version instead
/// (`libc.so.6` is a link to `libc-2.31.so` there).
#[derive(Debug)]
pub(super) struct Library {
    pub(super) name: String,
    pub(super) image: Elf,
}

impl Library {
    /// Whether one of the beginnings fits the name.
    pub(super) fn is_named(&self, beginnings: &[&str]) -> bool {
        beginnings
            .iter()
            .any(|beginning| self.name.starts_with(beginning))
    }
}

/// What a program is linked with, in the order of loading.
///
/// `LD_LIBRARY_PATH`, `LD_PRELOAD` and what the program loads later by itself are not known here.
pub(super) fn closure(root: &Root, program: &Elf, notes: &mut Vec<String>) -> Vec<Library> {
    let mut loaded = Vec::new();
    let mut names = HashSet::new();
    let mut files = HashSet::from([program.target().id()]);
    let mut queue = VecDeque::new();
    if let Some(path) = program.interpreter() {
        match root.open(Path::new(path)).and_then(Elf::open) {
            Ok(linker) => {
                let name = file_name(Path::new(path)).to_owned();
                names.insert(name.clone());
                files.insert(linker.target().id());
                loaded.push(Library {
                    name,
                    image: linker,
                });
            }
            Err(error) => notes.push(format!("the program interpreter is not readable: {error}")),
        }
    }
    let cache = ld_cache::read(root);
    enqueue(&mut queue, program, &[], notes);
    while let Some(request) = queue.pop_front() {
        if loaded.len() >= MAX_LIBRARIES {
            notes.push(format!(
                "more than {MAX_LIBRARIES} libraries; the rest is not followed"
            ));
            break;
        }
        if !names.insert(request.name.clone()) {
            continue;
        }
        let Some(image) = find(root, &request, &cache) else {
            notes.push(format!("library {} is not found", request.name));
            continue;
        };
        if files.insert(image.target().id()) {
            enqueue(&mut queue, &image, &request.rpath, notes);
            loaded.push(Library {
                name: request.name,
                image,
            });
        }
    }
    loaded
}

/// A name that some file needs, with the directories that this file wants searched.
struct Request {
    name: String,
    /// `DT_RPATH` of the file and of those that needed it.
    rpath: Vec<PathBuf>,
    runpath: Vec<PathBuf>,
}

fn enqueue(
    queue: &mut VecDeque<Request>,
    image: &Elf,
    inherited: &[PathBuf],
    notes: &mut Vec<String>,
) {
    let needs = match image.needs() {
        Ok(needs) => needs,
        Err(error) => {
            notes.push(error.to_string());
            return;
        }
    };
    let Needs {
        libraries,
        rpath,
        runpath,
    } = needs;
    let origin = image.target().path().parent().unwrap_or(Path::new("/"));
    let mut rpath = match (&rpath, &runpath) {
        (Some(list), None) => directories(list, origin),
        _ => Vec::new(),
    };
    rpath.extend(inherited.iter().take(MAX_DIRECTORIES).cloned());
    let runpath = runpath
        .map(|list| directories(&list, origin))
        .unwrap_or_default();
    for name in libraries {
        // `$LIB` and `$PLATFORM` in a needed name are as good as unused.
        queue.push_back(Request {
            name,
            rpath: rpath.clone(),
            runpath: runpath.clone(),
        });
    }
}

/// The directories of a search path, with `$ORIGIN` filled in.
fn directories(list: &str, origin: &Path) -> Vec<PathBuf> {
    let origin = origin.to_string_lossy();
    list.split(':')
        .filter(|entry| !entry.is_empty())
        .take(MAX_DIRECTORIES)
        .map(|entry| {
            PathBuf::from(
                entry
                    .replace("${ORIGIN}", &origin)
                    .replace("$ORIGIN", &origin)
                    .replace("$LIB", "lib/x86_64-linux-gnu"),
            )
        })
        .collect()
}

fn find(
    root: &Root,
    request: &Request,
    cache: &std::collections::HashMap<String, PathBuf>,
) -> Option<Elf> {
    let open = |path: &Path| root.open(path).and_then(Elf::open).ok();
    if request.name.contains('/') {
        return open(Path::new(&request.name));
    }
    let own = if request.runpath.is_empty() {
        &request.rpath
    } else {
        &request.runpath
    };
    own.iter()
        .find_map(|directory| open(&directory.join(&request.name)))
        .or_else(|| cache.get(&request.name).and_then(|path| open(path)))
        .or_else(|| {
            DEFAULT_DIRECTORIES
                .iter()
                .find_map(|directory| open(&Path::new(directory).join(&request.name)))
        })
}

/// The last part of a path; empty if there is none.
pub(super) fn file_name(path: &Path) -> &str {
    path.file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default()
}
