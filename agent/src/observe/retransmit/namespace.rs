//! Network namespaces by their inode numbers.

use std::path::Path;

/// Inode number of a network namespace, as in `/proc/PID/ns/net`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Netns(pub u32);

impl Netns {
    /// The agent's own.
    #[must_use]
    pub fn own() -> Option<Self> {
        Self::at(Path::new("/proc/self"))
    }

    /// That of the process of a folder of `/proc`.
    #[must_use]
    pub fn at(process: &Path) -> Option<Self> {
        let link = std::fs::read_link(process.join("ns/net")).ok()?;
        let inode = link.to_str()?.strip_prefix("net:[")?.strip_suffix(']')?;
        inode.parse().ok().map(Self)
    }
}
