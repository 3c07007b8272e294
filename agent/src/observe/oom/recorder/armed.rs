//! A cgroup near its limit, or the node: its files are kept open and read several times a second.

use std::fmt::Write as _;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::controller::{self, Version};
use super::look::{self, Look};
use super::pressure;
use crate::observe::oom::before::{Pressure, UsageSample};
use crate::time::{Boottime, Nanos};

/// How often its processes are looked at.
const LOOK: Nanos = Nanos(3_000_000_000);
/// The same when its limit is expected within [`SOON`]: this may be the last look.
const LOOK_SOON: Nanos = Nanos(1_000_000_000);
/// The same for the node, which has many processes.
const LOOK_NODE: Nanos = Nanos(10_000_000_000);
/// All looks together take one of so many parts of the time at most: meanwhile nothing is sampled.
const PARTS: u64 = 100;
/// How long a look is put off for that, at most.
const LOOK_AT_LAST: Nanos = Nanos(60_000_000_000);
/// When a limit is expected soon.
const SOON: Nanos = Nanos(5_000_000_000);
/// How long it stays armed once it is far from its line.
const PATIENCE: Nanos = Nanos(5_000_000_000);

/// Something that is near its limit.
#[derive(Debug)]
pub(super) struct Armed {
    source: Source,
    limit: u64,
    line: u64,
    /// Wakes under pressure (v2); the kernel forgets it when it is closed.
    trigger: Option<File>,
    looked: Option<Boottime>,
    /// How long the last look took.
    took: Nanos,
    /// Whether something happened since.
    is_pressing: bool,
    far_since: Option<Boottime>,
}

#[derive(Debug)]
enum Source {
    Cgroup(Box<Files>),
    Node {
        meminfo: File,
        pressure: Option<File>,
    },
}

/// Files of one cgroup.
#[derive(Debug)]
struct Files {
    version: Version,
    directory: PathBuf,
    usage: File,
    stat: Option<File>,
    events: Vec<(&'static str, File)>,
    pressure: Option<File>,
}

/// Room for what is read, used again and again.
#[derive(Debug, Default)]
pub(super) struct Room {
    pub(super) bytes: Vec<u8>,
    pub(super) events: String,
}

impl Armed {
    /// The cgroup at `directory`, near `limit` from `line` on.
    pub(super) fn cgroup(
        version: Version,
        directory: &Path,
        limit: u64,
        line: u64,
    ) -> io::Result<Self> {
        let open = |name: &str| File::open(directory.join(name));
        let events = version.events().iter();
        // From the beginning on: what it had when it was armed says what is new since.
        let trigger = directory.join("memory.pressure");
        let trigger = (version == Version::V2).then(|| pressure::trigger(&trigger));
        if let Some(Err(error)) = &trigger {
            let directory = directory.display();
            tracing::debug!("{directory} is sampled only, pressure does not wake: {error}");
        }
        let files = Files {
            version,
            directory: directory.to_owned(),
            usage: open(version.usage())?,
            stat: open("memory.stat").ok(),
            events: events
                .filter_map(|name| Some((*name, open(name).ok()?)))
                .collect(),
            pressure: open("memory.pressure").ok(),
        };
        Ok(Self {
            source: Source::Cgroup(Box::new(files)),
            limit,
            line,
            trigger: trigger.and_then(Result::ok),
            looked: None,
            took: Nanos(0),
            is_pressing: false,
            far_since: None,
        })
    }

    /// The node, near its `total` from `line` on.
    pub(super) fn node(meminfo: File, total: u64, line: u64) -> Self {
        Self {
            source: Source::Node {
                meminfo,
                pressure: File::open(pressure::NODE).ok(),
            },
            limit: total,
            line,
            // The node's wakes always, not only while it is armed.
            trigger: None,
            looked: None,
            took: Nanos(0),
            is_pressing: false,
            far_since: None,
        }
    }

    /// Its limit was changed.
    pub(super) const fn set_limit(&mut self, limit: u64, line: u64) {
        self.limit = limit;
        self.line = line;
    }

    /// Reads it. Its counters are left in `room.events`.
    pub(super) fn read(
        &self,
        at: Boottime,
        room: &mut Room,
    ) -> io::Result<(UsageSample, Option<Pressure>)> {
        room.events.clear();
        match &self.source {
            Source::Cgroup(files) => files.read(at, room),
            Source::Node { meminfo, pressure } => {
                let text = controller::text(meminfo, &mut room.bytes)?;
                let used = node_usage(text).ok_or(io::ErrorKind::InvalidData)?;
                let usage = UsageSample {
                    at,
                    bytes: used.bytes,
                    needed_bytes: Some(used.bytes),
                };
                Ok((usage, read_pressure(pressure.as_ref(), at, &mut room.bytes)))
            }
        }
    }

    /// Whether it has been far from its line for long enough, now that it holds `held` bytes.
    pub(super) fn is_over(&mut self, held: u64, at: Boottime) -> bool {
        if held >= self.line - self.line / 8 {
            self.far_since = None;
            return false;
        }
        at.since(*self.far_since.get_or_insert(at)) >= PATIENCE
    }

    /// Whether it is time for a look at its processes, one of `near` that are looked at.
    pub(super) fn wants_look(
        &self,
        at: Boottime,
        time_to_limit: Option<Nanos>,
        near: usize,
    ) -> bool {
        let soon = self.is_pressing || time_to_limit.is_some_and(|time| time < SOON);
        let every = match self.source {
            Source::Node { .. } => LOOK_NODE,
            Source::Cgroup(_) if soon => LOOK_SOON,
            Source::Cgroup(_) => LOOK,
        };
        let rest = self.took.0.saturating_mul(PARTS * near as u64);
        let every = every.max(Nanos(rest).min(LOOK_AT_LAST));
        self.looked.is_none_or(|looked| at.since(looked) >= every)
    }

    /// Something happened: the next look is soon, but not at each turn.
    pub(super) const fn want_look(&mut self) {
        self.is_pressing = true;
    }

    /// What wakes under pressure.
    pub(super) const fn trigger(&self) -> Option<&File> {
        self.trigger.as_ref()
    }

    /// Looks at its processes.
    pub(super) fn look(&mut self, at: Boottime, room: &mut Room) -> Look {
        self.looked = Some(at);
        self.is_pressing = false;
        let began = Instant::now();
        let look = match &self.source {
            Source::Cgroup(files) => {
                look::at_cgroup(&files.directory, self.limit, at, &mut room.bytes)
            }
            Source::Node { .. } => look::at_node(self.limit, at, &mut room.bytes),
        };
        self.took = Nanos(u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX));
        look
    }
}

impl Files {
    fn read(&self, at: Boottime, room: &mut Room) -> io::Result<(UsageSample, Option<Pressure>)> {
        let bytes = controller::number(&self.usage)?;
        let stat = self.stat.as_ref();
        let stat = stat.and_then(|file| controller::text(file, &mut room.bytes).ok());
        let needed = stat.map(|stat| bytes.saturating_sub(self.version.reclaimable(stat)));
        for (name, file) in &self.events {
            // v1 has one counter in a file of its own, without its name.
            if let Ok(value) = controller::number(file) {
                let name = name.strip_prefix("memory.").unwrap_or(name);
                // Writing to a string does not fail.
                let _ = writeln!(room.events, "{name} {value}");
            } else if let Ok(text) = controller::text(file, &mut room.bytes) {
                room.events.push_str(text);
            }
        }
        let usage = UsageSample {
            at,
            bytes,
            needed_bytes: needed,
        };
        let pressure = read_pressure(self.pressure.as_ref(), at, &mut room.bytes);
        Ok((usage, pressure))
    }
}

fn read_pressure(file: Option<&File>, at: Boottime, room: &mut Vec<u8>) -> Option<Pressure> {
    Pressure::parse(controller::text(file?, room).ok()?, at)
}

/// What the node uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NodeUsage {
    /// Bytes that cannot be had without swapping.
    pub(super) bytes: u64,
    /// Bytes in all.
    pub(super) total: u64,
}

/// Reads `/proc/meminfo`: what is used is what is not available.
pub(super) fn node_usage(meminfo: &str) -> Option<NodeUsage> {
    let value = |name: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
        let kib = line.trim_start_matches(':').trim().strip_suffix("kB")?;
        Some(kib.trim().parse::<u64>().ok()? * 1024)
    };
    let total = value("MemTotal")?;
    Some(NodeUsage {
        bytes: total.saturating_sub(value("MemAvailable")?),
        total,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_node_uses_what_is_not_available() {
        let text = "MemTotal:       1000 kB\nMemFree: 10 kB\nMemAvailable:    300 kB\n";
        let usage = node_usage(text).expect("usage");
        assert_eq!((usage.bytes, usage.total), (700 * 1024, 1000 * 1024));
        assert_eq!(node_usage("MemTotal: 5 kB\n"), None);
    }

    #[test]
    fn being_near_is_over_only_after_a_while() {
        let meminfo = File::open("/proc/meminfo").expect("meminfo");
        let mut armed = Armed::node(meminfo, 1000, 800);
        let at = |seconds: u64| Boottime(seconds * 1_000_000_000);
        assert!(!armed.is_over(900, at(1)));
        assert!(
            !armed.is_over(750, at(2)),
            "a little below the line is near"
        );
        assert!(!armed.is_over(600, at(3)));
        assert!(!armed.is_over(710, at(6)), "it came back");
        assert!(!armed.is_over(600, at(7)) && !armed.is_over(600, at(11)));
        assert!(armed.is_over(600, at(12)));
    }

    /// One that was looked at, at 0.
    fn looked_at() -> Armed {
        let directory = tempfile::tempdir().expect("a folder");
        std::fs::write(directory.path().join("memory.current"), "9\n").expect("written");
        let mut armed = Armed::cgroup(Version::V2, directory.path(), 10, 8).expect("a cgroup");
        let mut room = Room::default();
        let (usage, pressure) = armed.read(Boottime(1), &mut room).expect("read");
        assert_eq!((usage.bytes, usage.needed_bytes, pressure), (9, None, None));
        assert!(armed.wants_look(Boottime(0), None, 1));
        armed.look(Boottime(0), &mut room);
        armed
    }

    #[test]
    fn the_last_moments_are_looked_at_more_often() {
        let mut armed = looked_at();
        armed.took = Nanos(0);
        let soon = Some(Nanos(1));
        assert!(!armed.wants_look(Boottime(LOOK_SOON.0), None, 1));
        assert!(armed.wants_look(Boottime(LOOK_SOON.0), soon, 1));
        assert!(armed.wants_look(Boottime(LOOK.0), None, 1));
        armed.want_look();
        assert!(armed.wants_look(Boottime(LOOK_SOON.0), None, 1));
        assert!(!armed.wants_look(Boottime(LOOK_SOON.0 - 1), None, 1));
    }

    #[test]
    fn all_looks_together_take_a_small_share_of_the_time() {
        let mut armed = looked_at();
        assert!(armed.took > Nanos(0), "it is measured");
        armed.took = Nanos(100_000_000);
        armed.want_look();
        let wants =
            |at: u64, near| armed.wants_look(Boottime(at * 1_000_000_000), Some(Nanos(1)), near);
        assert!(!wants(9, 1) && wants(10, 1));
        assert!(!wants(29, 3) && wants(30, 3));
        assert!(!wants(59, 64) && wants(60, 64), "the last is not too old");
    }
}
