//! A cgroup with a limit, looked at from time to time.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::event::{EventfdFlags, eventfd};

use super::controller::{self, Version};
use crate::observe::oom::before::UsageSample;
use crate::time::{Boottime, Nanos};

/// How often it is looked at.
pub(super) const EVERY: Nanos = Nanos(1_000_000_000);
/// How often it is looked at while it is far from its limit.
const FAR: Nanos = Nanos(4_000_000_000);
/// How often it is looked at while it is full, but of pages that can be dropped.
const CACHE: Nanos = Nanos(2_000_000_000);
/// Share of the limit at which v1 wakes the recorder a last time.
const LAST: f64 = 0.97;

/// A cgroup with a limit.
#[derive(Debug)]
pub(super) struct Watched {
    pub(super) id: u64,
    pub(super) path: Arc<str>,
    pub(super) directory: PathBuf,
    pub(super) limit: u64,
    /// Bytes from which on it is near its limit.
    pub(super) line: u64,
    /// When it is to be looked at next.
    pub(super) due: Boottime,
    /// Whether it would be armed if there were room.
    pub(super) refused: bool,
    /// What was read last.
    pub(super) last: Option<UsageSample>,
    usage: File,
    /// v2: the kernel tells of changes of this file only while somebody has it open.
    _events: Option<File>,
    /// v1: wakes when the line is crossed. The kernel forgets it when it is closed.
    crossed: Option<OwnedFd>,
    /// Whether the kernel would not have it.
    is_deaf: bool,
}

/// What a look at it says.
#[derive(Debug)]
pub(super) enum Checked {
    /// It is not there any more.
    Gone,
    /// It is not near its limit.
    Far,
    /// It is. The text of its `memory.stat`, where it could be read.
    Near(Option<Box<str>>),
    /// It may be: to know takes more than may be read now.
    Unsure,
}

impl Watched {
    /// The cgroup at `directory`, if it has a limit; it is near from the share `near` on.
    pub(super) fn open(
        version: Version,
        path: &Arc<str>,
        directory: PathBuf,
        near: f64,
    ) -> Option<Self> {
        let limit = version.limit_of(&directory)?;
        let usage = File::open(directory.join(version.usage())).ok()?;
        let id = directory.metadata().ok()?.ino();
        let events = (version == Version::V2)
            .then(|| File::open(directory.join("memory.events")).ok())
            .flatten();
        let mut watched = Self {
            id,
            path: path.clone(),
            limit,
            line: 0,
            due: Boottime(0),
            refused: false,
            last: None,
            usage,
            _events: events,
            crossed: None,
            is_deaf: version == Version::V2,
            directory,
        };
        watched.draw_line(version, near);
        Some(watched)
    }

    /// Reads the limit again; whether there still is one.
    pub(super) fn limit_changed(&mut self, version: Version, near: f64) -> bool {
        let Some(limit) = version.limit_of(&self.directory) else {
            return false;
        };
        self.limit = limit;
        self.due = Boottime(0);
        self.draw_line(version, near);
        true
    }

    fn draw_line(&mut self, version: Version, near: f64) {
        let share = share_of(self.limit, near);
        // memory.high is the early line: there reclaim begins in earnest.
        let high = version.high_of(&self.directory).unwrap_or(u64::MAX);
        self.line = share.min(high);
        self.crossed = None;
    }

    /// Whether it is half way to its line, and does not wake when it gets there.
    pub(super) fn wants_to_wake(&self) -> bool {
        let half_way = |usage: UsageSample| usage.bytes >= self.line / 2;
        !self.is_deaf && self.crossed.is_none() && self.last.is_some_and(half_way)
    }

    /// Has the kernel wake when usage crosses the line, and a last time just below the limit. It
    /// waits for readers (an RCU grace period) each time: not something to do for all.
    pub(super) fn wake_at_line(&mut self) -> Option<&OwnedFd> {
        let lines = [self.line, share_of(self.limit, LAST)];
        let crossed = thresholds(&self.directory, &self.usage, &lines);
        // Without (where the mount is read-only), looking from time to time has to do.
        self.is_deaf = crossed.is_err();
        self.crossed = crossed.ok();
        self.crossed.as_ref()
    }

    /// Looks at it. Reads `memory.stat` only where that decides, and only while `stats` lasts:
    /// reading it makes the kernel add up what all CPUs have counted.
    pub(super) fn check(
        &mut self,
        version: Version,
        at: Boottime,
        stats: &mut u32,
        room: &mut Vec<u8>,
    ) -> Checked {
        let Ok(bytes) = controller::number(&self.usage) else {
            return Checked::Gone;
        };
        let mut usage = UsageSample {
            at,
            bytes,
            needed_bytes: None,
        };
        if bytes < self.line {
            let rest = if bytes < self.line / 2 { FAR } else { EVERY };
            self.seen(usage, rest);
            return Checked::Far;
        }
        if *stats == 0 {
            return Checked::Unsure;
        }
        *stats -= 1;
        let stat = File::open(self.directory.join("memory.stat"));
        let stat = stat.and_then(|file| Ok(Box::from(controller::text(&file, room)?)));
        let stat: Option<Box<str>> = stat.ok();
        usage.needed_bytes = stat
            .as_deref()
            .map(|stat| bytes.saturating_sub(version.reclaimable(stat)));
        if usage.needed_bytes.is_some_and(|needed| needed < self.line) {
            self.seen(usage, CACHE);
            return Checked::Far;
        }
        self.seen(usage, EVERY);
        Checked::Near(stat)
    }

    const fn seen(&mut self, usage: UsageSample, rest: Nanos) {
        self.due = Boottime(usage.at.0 + rest.0);
        self.last = Some(usage);
    }

    /// Takes what v1 said of the line, so that it can say so again.
    pub(super) fn take_crossed(&self) -> Option<&OwnedFd> {
        let crossed = self.crossed.as_ref()?;
        let _ = rustix::io::read(crossed, &mut [0; 8]);
        Some(crossed)
    }
}

/// A share of a number of bytes.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a line in a limit need not be exact, and is within it"
)]
fn share_of(limit: u64, share: f64) -> u64 {
    (limit as f64 * share) as u64
}

/// Has v1 tell when usage crosses one of `lines`.
fn thresholds(directory: &Path, usage: &File, lines: &[u64]) -> io::Result<OwnedFd> {
    let told = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
    for line in lines {
        let mut control = OpenOptions::new()
            .write(true)
            .open(directory.join("cgroup.event_control"))?;
        let request = format!("{} {} {line}", told.as_raw_fd(), usage.as_raw_fd());
        control.write_all(request.as_bytes())?;
    }
    Ok(told)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_cgroup_that_is_being_emptied_nears_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text);
        let open = || Watched::open(Version::V2, &"/a".into(), folder.path().to_owned(), 0.5);
        write("memory.current", "0\n").expect("written");
        write("memory.max", "8192\n").expect("written");
        write("memory.high", "0\n").expect("written");
        let mut watched = open().expect("it has a limit");
        assert_eq!(watched.line, 4096);
        let checked = watched.check(Version::V2, Boottime(1), &mut 1, &mut Vec::new());
        assert!(matches!(checked, Checked::Far), "{checked:?}");
        write("memory.max", "0\n").expect("written");
        assert!(!watched.limit_changed(Version::V2, 0.5));
        assert!(open().is_none());
    }
}
