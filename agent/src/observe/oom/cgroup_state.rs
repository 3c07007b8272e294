//! What the files of a cgroup say right after a kill: read at once, beneath the hierarchy's
//! mount, following no link.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, fstat, openat, openat2};
use rustix::io::Errno;

use super::model::{CgroupState, Known, Pressure, Reason};
use crate::observe::identity::MemoryHierarchy;
use crate::time::Boottime;

/// Longest file: `memory.stat` of 6.18 has some 2 KiB.
const LONGEST: u64 = 64 << 10;
/// From here on a limit of v1 stands for none.
const V1_NO_LIMIT: u64 = i64::MAX as u64 - 0xffff;

/// The hierarchy, open, to look at cgroups in it.
#[derive(Debug)]
pub struct Hierarchy {
    place: MemoryHierarchy,
    mount: OwnedFd,
    version: u8,
}

impl Hierarchy {
    /// Opens the mount of `place`.
    pub fn open(place: MemoryHierarchy) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let mount = openat(CWD, place.mount(), flags, Mode::empty())?;
        let unified = place.mount().join("cgroup.controllers").exists();
        Ok(Self {
            place,
            mount,
            version: if unified { 2 } else { 1 },
        })
    }

    /// Reads the files of the cgroup `id` at `path`.
    #[must_use]
    pub fn look(&self, id: u64, path: Option<&str>) -> Known<CgroupState> {
        let Some(path) = path else {
            let what = "no record names the cgroup, so that its directory cannot be found";
            return Known::absent(Reason::NotTold, what);
        };
        match self.directory(id, path) {
            Ok(Some(directory)) => Known::Value(self.state(&directory)),
            Ok(None) => Known::absent(Reason::Gone, "another cgroup has its path now"),
            Err(Errno::NOENT) => Known::absent(Reason::Gone, "the cgroup was removed already"),
            Err(error) => Known::absent(
                Reason::Unreadable,
                format!("its directory cannot be opened: {error}"),
            ),
        }
    }

    /// Whether there is a cgroup at `path`, as far as can be told.
    #[must_use]
    pub fn has(&self, path: &str) -> bool {
        let is_ours = self.place.beneath_mount(path).is_some();
        !(is_ours && matches!(self.open_beneath(path, OFlags::PATH), Err(Errno::NOENT)))
    }

    /// The processes in the cgroup `id` at `path`; none where it cannot be looked at.
    #[must_use]
    pub fn processes(&self, id: u64, path: Option<&str>) -> Vec<u32> {
        let directory = path.and_then(|path| self.directory(id, path).ok().flatten());
        let text = directory.map(|directory| read(&directory, "cgroup.procs"));
        let Some(Known::Value(text)) = text else {
            return Vec::new();
        };
        text.lines().filter_map(|line| line.parse().ok()).collect()
    }

    /// The directory at `path`, if it is the one that the kernel knows as `id`.
    fn directory(&self, id: u64, path: &str) -> Result<Option<OwnedFd>, Errno> {
        let directory = self.open_beneath(path, OFlags::RDONLY)?;
        Ok((fstat(&directory)?.st_ino == id).then_some(directory))
    }

    fn open_beneath(&self, path: &str, how: OFlags) -> Result<OwnedFd, Errno> {
        let Some(path) = self.place.beneath_mount(path) else {
            return Err(Errno::NOENT);
        };
        let path = if path.is_empty() { "." } else { path };
        let flags = how | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let within = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        openat2(&self.mount, path, flags, Mode::empty(), within)
    }

    fn state(&self, directory: &OwnedFd) -> CgroupState {
        let at = Boottime::now();
        if self.version == 2 {
            return CgroupState {
                at,
                version: 2,
                limit_bytes: limit(directory, "memory.max"),
                high_bytes: limit(directory, "memory.high"),
                usage_bytes: number(directory, "memory.current"),
                peak_bytes: number(directory, "memory.peak"),
                stat: table(directory, &["memory.stat"]),
                events: table(directory, &["memory.events"]),
                pressure: pressure(directory, at),
            };
        }
        CgroupState {
            at,
            version: 1,
            limit_bytes: limit(directory, "memory.limit_in_bytes"),
            high_bytes: Known::absent(Reason::CgroupVersion, "cgroup v1 has no memory.high"),
            usage_bytes: number(directory, "memory.usage_in_bytes"),
            peak_bytes: number(directory, "memory.max_usage_in_bytes"),
            stat: table(directory, &["memory.stat"]),
            events: table(directory, &["memory.failcnt", "memory.oom_control"]),
            pressure: Known::absent(Reason::CgroupVersion, "cgroup v1 has no memory.pressure"),
        }
    }
}

fn read(directory: &OwnedFd, name: &str) -> Known<String> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let text = openat(directory, name, flags, Mode::empty())
        .map_err(io::Error::from)
        .and_then(|fd| {
            let mut text = String::new();
            File::from(fd).take(LONGEST).read_to_string(&mut text)?;
            Ok(text)
        });
    match text {
        Ok(text) => Known::Value(text),
        Err(error) => {
            let reason = match error.kind() {
                // The root has none of them, and an older kernel not all.
                io::ErrorKind::NotFound => Reason::Kernel,
                _ if error.raw_os_error() == Some(libc::ENODEV) => Reason::Gone,
                _ if error.raw_os_error() == Some(libc::EOPNOTSUPP) => Reason::Off,
                _ => Reason::Unreadable,
            };
            Known::absent(reason, format!("{name}: {error}"))
        }
    }
}

fn number(directory: &OwnedFd, name: &str) -> Known<u64> {
    match read(directory, name) {
        Known::Value(text) => text.trim().parse().map_or_else(
            |_| Known::absent(Reason::Unreadable, format!("{name} is {:?}", text.trim())),
            Known::Value,
        ),
        Known::Absent(absent) => Known::Absent(absent),
    }
}

fn limit(directory: &OwnedFd, name: &str) -> Known<u64> {
    let none = || Known::absent(Reason::NotApplicable, format!("{name} sets none"));
    match read(directory, name) {
        Known::Value(text) if text.trim() == "max" => none(),
        Known::Value(_) => match number(directory, name) {
            Known::Value(bytes) if bytes >= V1_NO_LIMIT => none(),
            number => number,
        },
        Known::Absent(absent) => Known::Absent(absent),
    }
}

/// The lines `NAME VALUE` of files; a file with one number is a line with the file's name.
fn table(directory: &OwnedFd, names: &[&str]) -> Known<BTreeMap<String, u64>> {
    let mut table = BTreeMap::new();
    for name in names {
        let text = match read(directory, name) {
            Known::Value(text) => text,
            Known::Absent(absent) => return Known::Absent(absent),
        };
        for line in text.lines() {
            let short = name.strip_prefix("memory.").unwrap_or(name);
            let (key, value) = line.split_once(' ').unwrap_or((short, line));
            if let Ok(value) = value.trim().parse() {
                table.insert(key.to_owned(), value);
            }
        }
    }
    Known::Value(table)
}

fn pressure(directory: &OwnedFd, at: Boottime) -> Known<Pressure> {
    match read(directory, "memory.pressure") {
        Known::Value(text) => Pressure::parse(&text, at).map_or_else(
            || Known::absent(Reason::Unreadable, "memory.pressure is not as it should be"),
            Known::Value,
        ),
        Known::Absent(absent) => Known::Absent(absent),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt as _, symlink};

    use tempfile::TempDir;

    use super::*;

    /// A hierarchy of plain files, with one cgroup.
    fn hierarchy(version: u8, files: &[(&str, &str)]) -> (TempDir, Hierarchy, u64) {
        let mount = TempDir::new().expect("a folder");
        let cgroup = mount.path().join("a/b");
        fs::create_dir_all(&cgroup).expect("made");
        for (name, text) in files {
            fs::write(cgroup.join(name), text).expect("written");
        }
        if version == 2 {
            fs::write(mount.path().join("cgroup.controllers"), "memory\n").expect("written");
        }
        let place = MemoryHierarchy::at(mount.path(), "");
        let id = fs::metadata(&cgroup).expect("it is there").ino();
        (mount, Hierarchy::open(place).expect("opens"), id)
    }

    #[test]
    fn files_of_v2_are_read_and_what_is_missing_says_why() {
        let (_mount, hierarchy, id) = hierarchy(
            2,
            &[
                ("memory.max", "max\n"),
                ("memory.high", "4096\n"),
                ("memory.current", "x\n"),
                ("memory.stat", "anon 5\nfile 6\n"),
                ("memory.events", "oom_kill 1\n"),
                (
                    "memory.pressure",
                    "some avg10=1.50 avg60=0.00 avg300=0.00 total=7\n\
                     full avg10=0.00 avg60=0.00 avg300=0.00 total=3\n",
                ),
            ],
        );
        let state = hierarchy.look(id, Some("/a/b"));
        let state = state.value().expect("read");
        assert_eq!(state.version, 2);
        let reason = |known: &Known<u64>| known.why().map(|absent| absent.reason);
        assert_eq!(reason(&state.limit_bytes), Some(Reason::NotApplicable));
        assert_eq!(state.high_bytes.value(), Some(&4096));
        assert_eq!(reason(&state.usage_bytes), Some(Reason::Unreadable));
        assert_eq!(reason(&state.peak_bytes), Some(Reason::Kernel));
        assert_eq!(state.stat.value().expect("read")["file"], 6);
        assert_eq!(state.pressure.value().expect("read").full.total_us, 3);
    }

    #[test]
    fn files_of_v1_are_read_and_what_v1_lacks_says_so() {
        let none = i64::MAX as u64 / 4096 * 4096;
        let (_mount, hierarchy, id) = hierarchy(
            1,
            &[
                ("memory.limit_in_bytes", &none.to_string()),
                ("memory.failcnt", "9\n"),
                (
                    "memory.oom_control",
                    "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n",
                ),
            ],
        );
        let state = hierarchy.look(id, Some("/a/b"));
        let state = state.value().expect("read");
        let reason = |known: Option<&super::super::Absent>| known.map(|absent| absent.reason);
        assert_eq!(reason(state.limit_bytes.why()), Some(Reason::NotApplicable));
        assert_eq!(reason(state.pressure.why()), Some(Reason::CgroupVersion));
        let events = state.events.value().expect("read");
        assert_eq!((events["failcnt"], events["oom_kill"]), (9, 2));
    }

    #[test]
    fn only_the_very_cgroup_is_looked_at() {
        let (mount, hierarchy, id) = hierarchy(2, &[]);
        symlink("b", mount.path().join("a/link")).expect("a link");
        let reason = |id, path| match hierarchy.look(id, path) {
            Known::Absent(absent) => absent.reason,
            Known::Value(state) => panic!("it was looked at: {state:?}"),
        };
        assert_eq!(reason(id + 1, Some("/a/b")), Reason::Gone);
        assert_eq!(reason(id, Some("/a/c")), Reason::Gone);
        assert_eq!(reason(id, Some("/a/link")), Reason::Unreadable);
        assert_eq!(reason(id, Some("/a/../a/b/../../..")), Reason::Unreadable);
        assert_eq!(reason(id, None), Reason::NotTold);
        let there = ["/", "/a/b", "/a/c"].map(|path| hierarchy.has(path));
        assert_eq!(there, [true, true, false]);
    }
}
