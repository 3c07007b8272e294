//! Which execs open a start, and what is known about such starts beforehand.

use glob::{MatchOptions, Pattern};
use hearth_abi::COMM_BYTES;
use thiserror::Error;

use super::ReadyRule;
use crate::time::Nanos;

/// VMMs, which run the function inside themselves; other runtimes exec it.
pub const VMMS: [&str; 4] = [
    "firecracker",
    "cloud-hypervisor",
    "qemu-system-x86_64",
    "qemu-system-aarch64",
];

/// What the program that opens a start is to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// An OCI runtime: the start is of what it execs out of its own image.
    Runtime,
    /// The start is of the program itself.
    Program,
    /// It forks the functions: each of its forks opens a start, its own exec none.
    ForkServer,
}

/// Which executable a rule is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Executable {
    name: String,
    path: Option<Pattern>,
}

/// Why a text names no executable.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ExecutableError {
    /// No name.
    #[error(
        "executable {0:?} names no file; write a file name such as \"runc\" or a path such as \"/opt/*/bin/app\""
    )]
    Empty(String),
    /// A wildcard where the kernel side needs a name.
    #[error(
        "executable {0:?} has a wildcard in its file name; keep wildcards to the folders, the kernel side selects by name"
    )]
    Wildcard(String),
    /// Neither a bare name nor absolute.
    #[error("executable {0:?} is neither a file name nor an absolute path")]
    Relative(String),
    /// A malformed pattern.
    #[error("executable {0:?} is not a pattern: {1}")]
    Pattern(String, String),
}

impl Executable {
    /// From a file name (`runc`) or an absolute path whose folders may hold `*`, `?` and
    /// `[...]` (`/opt/*/bin/app`).
    pub fn parse(text: &str) -> Result<Self, ExecutableError> {
        let name = base(text);
        if name.is_empty() {
            return Err(ExecutableError::Empty(text.to_owned()));
        }
        if name.contains(['*', '?', '[']) {
            return Err(ExecutableError::Wildcard(text.to_owned()));
        }
        if !text.contains('/') {
            return Ok(Self {
                name: name.to_owned(),
                path: None,
            });
        }
        if !text.starts_with('/') {
            return Err(ExecutableError::Relative(text.to_owned()));
        }
        let path = Pattern::new(text)
            .map_err(|error| ExecutableError::Pattern(text.to_owned(), error.to_string()))?;
        Ok(Self {
            name: name.to_owned(),
            path: Some(path),
        })
    }

    /// Its file name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The task name that the kernel gives to such a program: the file name, cut and padded.
    #[must_use]
    pub fn comm(&self) -> [u8; COMM_BYTES] {
        let mut comm = [0; COMM_BYTES];
        let name = cut(&self.name);
        comm[..name.len()].copy_from_slice(name);
        comm
    }

    /// Whether an exec of `file` (as given to the syscall) is meant. A path pattern matches
    /// absolute files only.
    #[must_use]
    pub fn matches(&self, file: &str) -> bool {
        const OPTIONS: MatchOptions = MatchOptions {
            case_sensitive: true,
            require_literal_separator: true,
            require_literal_leading_dot: false,
        };
        match &self.path {
            Some(path) => path.matches_with(file, OPTIONS),
            // A name as short as a task's may be one that was cut to that.
            None if self.name.len() < COMM_BYTES => cut(base(file)) == self.name.as_bytes(),
            None => base(file) == self.name,
        }
    }
}

/// A name as the kernel cuts it for a task.
fn cut(name: &str) -> &[u8] {
    let bytes = name.as_bytes();
    &bytes[..bytes.len().min(COMM_BYTES - 1)]
}

/// The last component of a path.
fn base(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// Execs of this executable open a start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartRule {
    /// Which.
    pub executable: Executable,
    /// What it is to the start.
    pub role: Role,
    /// When its starts are ready; `None` for the default rule.
    pub ready: Option<ReadyRule>,
    /// When its starts are given up; `None` for the default deadline.
    pub deadline: Option<Nanos>,
    /// The function's name.
    pub function: Option<String>,
}

impl StartRule {
    /// A rule for `executable` with the default ready rule and deadline.
    pub fn new(executable: &str, role: Role) -> Result<Self, ExecutableError> {
        let executable = Executable::parse(executable)?;
        Ok(Self {
            executable,
            role,
            ready: None,
            deadline: None,
            function: None,
        })
    }

    /// The rule for an OCI runtime or VMM of this name.
    pub fn runtime(name: &str) -> Result<Self, ExecutableError> {
        let role = if VMMS.contains(&name) {
            Role::Program
        } else {
            Role::Runtime
        };
        Self::new(name, role)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_matches_in_any_folder_and_a_path_only_where_it_says() {
        let name = Executable::parse("runc").expect("name");
        assert!(name.matches("/usr/sbin/runc") && name.matches("runc"));
        assert!(!name.matches("/usr/sbin/runc-real"));
        let path = Executable::parse("/opt/*/bin/app").expect("path");
        assert!(path.matches("/opt/a/bin/app"));
        assert!(!path.matches("/opt/a/b/bin/app") && !path.matches("/usr/bin/app"));
    }

    #[test]
    fn the_kernel_gets_the_name_as_it_cuts_it() {
        let long = Executable::parse("qemu-system-x86_64").expect("name");
        assert_eq!(&long.comm(), b"qemu-system-x86\0");
        assert_eq!(
            &Executable::parse("/a/b/runc").expect("path").comm()[..5],
            b"runc\0"
        );
    }

    #[test]
    fn a_wrong_executable_says_what_to_write() {
        for (text, needle) in [
            ("", "names no file"),
            ("/opt/", "names no file"),
            ("/opt/run*", "wildcard in its file name"),
            ("bin/app", "neither a file name nor an absolute path"),
            ("/opt/[a/app", "is not a pattern"),
        ] {
            let error = Executable::parse(text).expect_err(text).to_string();
            assert!(error.contains(needle), "{text:?}: {error}");
        }
    }
}
