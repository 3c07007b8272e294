//! The files of the memory controller, under their names of v1 and v2.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

/// Version of the hierarchy that carries the memory controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    /// One hierarchy of its own.
    V1,
    /// The unified one.
    V2,
}

/// Longest number and its newline.
const NUMBER: usize = 32;
/// Longest `memory.stat`: 6.18 writes some 2 KiB.
const STAT: usize = 16 * 1024;
/// What v1 tells as the limit of a cgroup that has none: the largest `long`, in whole pages of
/// at most 64 KiB.
const V1_NO_LIMIT: u64 = i64::MAX as u64 - 0xffff;

impl Version {
    /// That of the hierarchy mounted at `mount`.
    pub(super) fn of(mount: &Path) -> Self {
        if mount.join("cgroup.controllers").exists() {
            Self::V2
        } else {
            Self::V1
        }
    }

    /// Bytes charged.
    pub(super) const fn usage(self) -> &'static str {
        match self {
            Self::V1 => "memory.usage_in_bytes",
            Self::V2 => "memory.current",
        }
    }

    /// Where the kernel kills.
    pub(super) const fn limit(self) -> &'static str {
        match self {
            Self::V1 => "memory.limit_in_bytes",
            Self::V2 => "memory.max",
        }
    }

    /// The files that count what happened at the limit.
    pub(super) const fn events(self) -> &'static [&'static str] {
        match self {
            Self::V1 => &["memory.failcnt", "memory.oom_control"],
            Self::V2 => &["memory.events"],
        }
    }

    /// Whether a change of this file may change the limit or the early line.
    pub(super) fn sets_limit(self, name: &[u8]) -> bool {
        name == self.limit().as_bytes() || (self == Self::V2 && name == b"memory.high")
    }

    /// The limit of `directory`; `None` where it has none, or none that can be read, and of zero:
    /// that is how a cgroup is emptied, and nothing can near it.
    pub(super) fn limit_of(self, directory: &Path) -> Option<u64> {
        let file = File::open(directory.join(self.limit())).ok()?;
        self.read_limit(&file)
    }

    fn read_limit(self, file: &File) -> Option<u64> {
        // "max" is no number.
        let limit = number(file).ok()?;
        let is_one = limit > 0 && (self == Self::V2 || limit < V1_NO_LIMIT);
        is_one.then_some(limit)
    }

    /// `memory.high`, the early line of v2; zero is none either.
    pub(super) fn high_of(self, directory: &Path) -> Option<u64> {
        if self == Self::V1 {
            return None;
        }
        let high = number(&File::open(directory.join("memory.high")).ok()?).ok();
        high.filter(|high| *high > 0)
    }

    /// `memory.oom.group` of v2.
    pub(super) fn oom_group_of(self, directory: &Path) -> Option<bool> {
        if self == Self::V1 {
            return None;
        }
        let group = number(&File::open(directory.join("memory.oom.group")).ok()?);
        group.ok().map(|group| group != 0)
    }

    /// Bytes that reclaim gets back without swap, from the text of a `memory.stat`: pages of
    /// files (shared memory is not among them) and, where they are told, what can be dropped
    /// of the kernel's own. v1 has lines of the cgroup alone and of all below it; it is the
    /// latter that the limit counts.
    pub(super) fn reclaimable(self, stat: &str) -> u64 {
        let wanted: &[&str] = match self {
            Self::V1 => &["total_inactive_file", "total_active_file"],
            Self::V2 => &["inactive_file", "active_file", "slab_reclaimable"],
        };
        pairs(stat)
            .filter(|(name, _)| wanted.contains(name))
            .map(|(_, value)| value)
            .sum()
    }
}

/// The lines `NAME VALUE` of a text.
pub(super) fn pairs(text: &str) -> impl Iterator<Item = (&str, u64)> {
    text.lines().filter_map(|line| {
        let (name, value) = line.split_once(' ')?;
        Some((name, value.trim().parse().ok()?))
    })
}

/// The same as a table.
pub(super) fn table(text: &str) -> BTreeMap<String, u64> {
    pairs(text)
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

/// Reads a file of one number from its beginning, without opening it again.
pub(super) fn number(file: &File) -> io::Result<u64> {
    let mut bytes = [0; NUMBER];
    let length = file.read_at(&mut bytes, 0)?;
    let text = std::str::from_utf8(&bytes[..length]).unwrap_or_default();
    text.trim()
        .parse()
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "not a number"))
}

/// Reads a file of some lines from its beginning, without opening it again; `into` is the room
/// for it and is used again.
pub(super) fn text<'a>(file: &File, into: &'a mut Vec<u8>) -> io::Result<&'a str> {
    into.resize(STAT, 0);
    let mut length = 0;
    // The kernel gives a page at most at a time.
    while length < into.len() {
        match file.read_at(&mut into[length..], length as u64)? {
            0 => break,
            more => length += more,
        }
    }
    std::str::from_utf8(&into[..length])
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "not text"))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn file(content: &str) -> File {
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(content.as_bytes()).expect("written");
        file
    }

    #[test]
    fn no_limit_is_no_number() {
        assert_eq!(Version::V2.read_limit(&file("max\n")), None);
        assert_eq!(Version::V2.read_limit(&file("4096\n")), Some(4096));
        for version in [Version::V1, Version::V2] {
            assert_eq!(version.read_limit(&file("0\n")), None);
        }
        let none = format!("{}\n", i64::MAX as u64 / 4096 * 4096);
        assert_eq!(Version::V1.read_limit(&file(&none)), None);
        let none = format!("{}\n", i64::MAX as u64 / 65_536 * 65_536);
        assert_eq!(Version::V1.read_limit(&file(&none)), None);
        assert_eq!(
            Version::V1.read_limit(&file("33554432\n")),
            Some(33_554_432)
        );
    }

    #[test]
    fn what_reclaim_gets_back_is_that_of_the_whole_cgroup() {
        let v1 = "cache 9\ninactive_file 1\nactive_file 2\ntotal_cache 99\n\
                  total_inactive_file 10\ntotal_active_file 20\n";
        assert_eq!(Version::V1.reclaimable(v1), 30);
        let v2 = "anon 7\nfile 60\nshmem 9\ninactive_file 10\nactive_file 20\nslab_reclaimable 5\n";
        assert_eq!(Version::V2.reclaimable(v2), 35);
    }

    #[test]
    fn files_are_read_again_from_their_beginning() {
        let stat = "anon 7\n".repeat(1000);
        let file = file(&stat);
        let mut room = Vec::new();
        for _ in 0..2 {
            assert_eq!(text(&file, &mut room).expect("read"), stat);
        }
        assert_eq!(table("low 0\nhigh 3\noom_kill 1\n")["high"], 3);
    }
}
