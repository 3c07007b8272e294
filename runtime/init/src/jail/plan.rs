//! All that the function's first process does until it is the function's, made ready before it is
//! there: between fork and exec nothing may be allocated.

use std::ffi::{CString, c_char};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;

use hearth_runtime::sandbox::message::NotStarted;
use hearth_runtime::sandbox::start::{HugePages, Start};
use hearth_runtime::seccomp::Filter;
use rustix::process::{Resource, Rlimit, getrlimit};

use super::users::Users;

/// Where programs are looked for that have no `/` in their names, if the environment does not say.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A function may lock this much memory, as every process may by default.
const LOCKED: u64 = 64 << 10;

pub(super) struct Plan<'a> {
    pub(super) users: &'a Users,
    pub(super) filter: &'a Filter,
    pub(super) out: OwnedFd,
    pub(super) err: OwnedFd,
    pub(super) limits: [(Resource, Rlimit); 5],
    pub(super) huge_pages: HugePages,
    pub(super) directory: CString,
    /// Files to try, in this order.
    pub(super) candidates: Vec<CString>,
    pub(super) arguments: Strings,
    pub(super) environment: Strings,
}

impl<'a> Plan<'a> {
    pub(super) fn new(
        users: &'a Users,
        filter: &'a Filter,
        start: &Start,
        environment: &[(String, String)],
        (out, err): (OwnedFd, OwnedFd),
    ) -> Result<Self, NotStarted> {
        let name = start.program.command.first();
        let name = name.map(String::as_str).unwrap_or_default();
        let not = |error: &str| NotStarted::Program {
            command: name.to_owned(),
            error: error.to_owned(),
        };
        if name.is_empty() {
            return Err(not("command: there must be the name of a program"));
        }
        let nul = |_| not("a NUL byte in its name, arguments, environment or directory");
        let path = environment.iter().rfind(|(name, _)| name == "PATH");
        let path = path.map_or(PATH, |(_, path)| path.as_str());
        let pairs = environment
            .iter()
            .map(|(name, value)| format!("{name}={value}"));
        Ok(Self {
            users,
            filter,
            out,
            err,
            limits: limits(start.open_files),
            huge_pages: start.huge_pages,
            directory: CString::new(start.program.directory.as_os_str().as_bytes()).map_err(nul)?,
            candidates: candidates(name, path).map_err(nul)?,
            arguments: Strings::new(start.program.command.iter().cloned()).map_err(nul)?,
            environment: Strings::new(pairs).map_err(nul)?,
        })
    }
}

fn candidates(name: &str, path: &str) -> Result<Vec<CString>, std::ffi::NulError> {
    if name.contains('/') {
        return Ok(vec![CString::new(name)?]);
    }
    // An empty part means the directory it is in to a shell; here a directory is named.
    let directories = path.split(':').filter(|directory| !directory.is_empty());
    directories
        .map(|directory| CString::new(format!("{directory}/{name}")))
        .collect()
}

/// What a process may have. Numbers of processes and bytes of memory are the cgroup's to limit,
/// bytes of files the writable layer's. Where less is allowed already, that stays.
fn limits(open_files: u64) -> [(Resource, Rlimit); 5] {
    let at_most = |resource, wanted: u64| {
        let allowed = getrlimit(resource).maximum.unwrap_or(u64::MAX);
        let limit = Some(wanted.min(allowed));
        let limit = Rlimit {
            current: limit,
            maximum: limit,
        };
        (resource, limit)
    };
    [
        at_most(Resource::Nofile, open_files),
        at_most(Resource::Core, 0),
        at_most(Resource::Memlock, LOCKED),
        at_most(Resource::Nice, 0),
        at_most(Resource::Rtprio, 0),
    ]
}

/// Strings as `execve` takes them.
pub(super) struct Strings {
    pointers: Vec<*const c_char>,
    _owned: Vec<CString>,
}

impl Strings {
    fn new(strings: impl Iterator<Item = String>) -> Result<Self, std::ffi::NulError> {
        let owned = strings.map(CString::new).collect::<Result<Vec<_>, _>>()?;
        let pointers = owned.iter().map(|string| string.as_ptr());
        Ok(Self {
            pointers: pointers.chain([std::ptr::null()]).collect(),
            _owned: owned,
        })
    }

    /// An array that a null pointer ends; valid as long as this is.
    pub(super) fn as_ptr(&self) -> *const *const c_char {
        self.pointers.as_ptr()
    }
}
