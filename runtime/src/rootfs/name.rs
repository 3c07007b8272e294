//! Paths in a layer, as somebody else wrote them.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// Bytes that the kernel takes as a path.
const MAX_PATH: usize = 4095;
/// Bytes that it takes as one name.
const MAX_NAME: usize = 255;
/// Directories within each other; whoever needs more does it to exhaust something.
const MAX_DEPTH: usize = 64;

/// A path or link of a layer that is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{path}`: {problem}")]
pub struct NameError {
    /// The path as it stands in the layer, shortened.
    pub path: String,
    /// What is wrong with it.
    pub problem: NameProblem,
}

/// Why it is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameProblem {
    /// It begins with `/`.
    #[error("an absolute path; paths in a layer are relative to its root")]
    Absolute,
    /// It has `..` in it.
    #[error("it goes up with `..`")]
    Up,
    /// A link whose target is outside of the layer.
    #[error("a link that leads out of the layer")]
    Escapes,
    /// The kernel would not take it.
    #[error(
        "longer than {MAX_PATH} bytes, a name in it longer than {MAX_NAME}, or deeper than {MAX_DEPTH} directories"
    )]
    TooLong,
    /// It has a NUL in it, or is empty.
    #[error("empty, or with a NUL in it")]
    NoName,
}

/// A path below the root of a layer: names only, none of them `.` or `..`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Path(Vec<OsString>);

impl Path {
    /// Reads the path of an entry. The root itself (`./`) is a path without names.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, NameError> {
        let refused = |problem| NameError {
            path: shown(bytes),
            problem,
        };
        if bytes.is_empty() || bytes.contains(&0) {
            return Err(refused(NameProblem::NoName));
        }
        if bytes.starts_with(b"/") {
            return Err(refused(NameProblem::Absolute));
        }
        let mut names = Vec::new();
        for name in bytes.split(|byte| *byte == b'/') {
            match name {
                b"" | b"." => {}
                b".." => return Err(refused(NameProblem::Up)),
                name => names.push(OsStr::from_bytes(name).to_os_string()),
            }
        }
        let too_long = bytes.len() > MAX_PATH
            || names.len() > MAX_DEPTH
            || names.iter().any(|name| name.len() > MAX_NAME);
        if too_long {
            return Err(refused(NameProblem::TooLong));
        }
        Ok(Self(names))
    }

    /// The directory that it is in, and its name there; none for the root.
    pub(super) fn split(&self) -> Option<(Self, &OsStr)> {
        let (name, parent) = self.0.split_last()?;
        Some((Self(parent.to_vec()), name))
    }

    /// With one more name.
    pub(super) fn join(&self, name: &OsStr) -> Self {
        let mut names = self.0.clone();
        names.push(name.to_os_string());
        Self(names)
    }

    /// Its names, outermost first.
    pub(super) fn names(&self) -> impl Iterator<Item = &OsStr> {
        self.0.iter().map(OsString::as_os_str)
    }

    /// As bytes for the kernel; the root is `.`.
    pub(super) fn as_bytes(&self) -> Vec<u8> {
        if self.0.is_empty() {
            return b".".to_vec();
        }
        let names: Vec<&[u8]> = self.0.iter().map(|name| name.as_bytes()).collect();
        names.join(&b'/')
    }

    /// How many directories it is in.
    fn depth(&self) -> usize {
        self.0.len().saturating_sub(1)
    }

    /// The target of a symbolic link at this path, such that it means in the layer what it would
    /// mean with the layer as root, and outside of it nothing else: an absolute target becomes
    /// relative (images are full of them), one that climbs over the root is refused.
    pub(super) fn link_target(&self, target: &[u8]) -> Result<OsString, NameError> {
        let refused = |problem| NameError {
            path: format!("{} -> {}", shown(&self.as_bytes()), shown(target)),
            problem,
        };
        if target.is_empty() || target.contains(&0) {
            return Err(refused(NameProblem::NoName));
        }
        // By its names alone: nothing here ever follows a link, and the sandbox's own root ends
        // every way up.
        if self.climbs(target) {
            return Err(refused(NameProblem::Escapes));
        }
        let up = if target.starts_with(b"/") {
            self.depth()
        } else {
            0
        };
        let names = target
            .split(|byte| *byte == b'/')
            .filter(|name| !name.is_empty());
        let names: Vec<&[u8]> = std::iter::repeat_n(&b".."[..], up).chain(names).collect();
        let mut bytes = names.join(&b'/');
        if bytes.is_empty() {
            bytes = b".".to_vec();
        }
        if bytes.len() > MAX_PATH {
            return Err(refused(NameProblem::TooLong));
        }
        Ok(OsString::from_vec(bytes))
    }

    /// By its names alone, `target` goes above the root at some point.
    fn climbs(&self, target: &[u8]) -> bool {
        let mut depth = if target.starts_with(b"/") {
            0
        } else {
            self.depth()
        };
        for name in target.split(|byte| *byte == b'/') {
            match name {
                b"" | b"." => {}
                b".." if depth == 0 => return true,
                b".." => depth -= 1,
                _ => depth += 1,
            }
        }
        false
    }
}

/// For people: lossy and short.
fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).chars().take(200).collect()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn problem<T: std::fmt::Debug>(result: Result<T, NameError>) -> NameProblem {
        result.unwrap_err().problem
    }

    #[test]
    fn paths_are_names_below_the_root() {
        let read = |bytes: &[u8]| Path::parse(bytes).unwrap().as_bytes();
        assert_eq!(read(b"./usr//bin/./sh/"), b"usr/bin/sh");
        assert_eq!(read(b"./"), b".");
        assert_eq!(read(b"...\xff"), b"...\xff");
        assert_eq!(problem(Path::parse(b"/etc/passwd")), NameProblem::Absolute);
        assert_eq!(problem(Path::parse(b"a/../../b")), NameProblem::Up);
        assert_eq!(problem(Path::parse(b"a/..")), NameProblem::Up);
        assert_eq!(problem(Path::parse(b"")), NameProblem::NoName);
        assert_eq!(problem(Path::parse(b"a\0b")), NameProblem::NoName);
        assert_eq!(problem(Path::parse(&[b'a'; 256])), NameProblem::TooLong);
        assert_eq!(
            problem(Path::parse(&b"a/".repeat(65))),
            NameProblem::TooLong
        );
    }

    #[test]
    fn links_mean_the_same_below_the_root_as_at_it() {
        let link = |at: &[u8], target: &[u8]| Path::parse(at).unwrap().link_target(target);
        let to = |at: &[u8], target: &[u8]| link(at, target).unwrap().into_vec();
        assert_eq!(
            to(b"etc/alternatives/awk", b"/usr/bin/mawk"),
            b"../../usr/bin/mawk"
        );
        assert_eq!(to(b"bin", b"usr/bin"), b"usr/bin");
        assert_eq!(to(b"bin", b"/usr/bin"), b"usr/bin");
        assert_eq!(to(b"rootfs", b"/"), b".");
        assert_eq!(to(b"a/b", b"/"), b"..");
        assert_eq!(
            to(b"usr/lib/x.so", b"../../lib/x.so.1"),
            b"../../lib/x.so.1"
        );
        assert_eq!(
            problem(link(b"usr/x", b"../../etc/passwd")),
            NameProblem::Escapes
        );
        assert_eq!(problem(link(b"x", b"a/../../etc")), NameProblem::Escapes);
        assert_eq!(problem(link(b"x", b"/../etc")), NameProblem::Escapes);
        assert_eq!(problem(link(b"x", b"")), NameProblem::NoName);
    }

    proptest! {
        #[test]
        fn no_link_of_a_layer_leads_out_of_it(
            at in "[a-c]{1,2}(/[a-c]{1,2}){0,4}",
            target in "/?((\\.\\.|\\.|[a-c])/{1,2}){0,7}[a-c]?",
        ) {
            let at = Path::parse(at.as_bytes()).unwrap();
            if let Ok(target) = at.link_target(target.as_bytes()) {
                let target = target.into_vec();
                prop_assert!(!target.starts_with(b"/"));
                prop_assert!(!at.climbs(&target));
            }
        }
    }
}
