//! Pressure: how long processes of a cgroup waited for a resource, and a word when they do.
//!
//! It is kept by the v2 hierarchy, on a hybrid host too; v1 alone has none.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::fs::OFlags;

use super::dir::{fault, write_whole};
use super::error::{Error, Result};
use super::group::Cgroup;

/// What can be waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resource {
    /// A processor.
    Cpu,
    /// Memory.
    Memory,
    /// A block device.
    Io,
}

impl Resource {
    fn file(self) -> &'static str {
        match self {
            Self::Cpu => "cpu.pressure",
            Self::Memory => "memory.pressure",
            Self::Io => "io.pressure",
        }
    }
}

/// Whether some of the processes wait, or all that could run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Share {
    /// At least one.
    Some,
    /// All.
    Full,
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Some => "some",
            Self::Full => "full",
        })
    }
}

/// One line of a pressure file.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Waits {
    /// Percent of the last 10 s.
    pub avg10: f64,
    /// Percent of the last minute.
    pub avg60: f64,
    /// Percent of the last 5 minutes.
    pub avg300: f64,
    /// All of it.
    pub total: Duration,
}

/// A pressure file.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Pressure {
    /// Some waited.
    pub some: Waits,
    /// All waited; older kernels do not tell this of processors.
    pub full: Option<Waits>,
}

impl Pressure {
    /// Reads the text of a pressure file.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let line = |share: &str| {
            text.lines().find_map(|line| {
                let mut words = line.split(' ');
                (words.next()? == share).then(|| waits(words))?
            })
        };
        Some(Self {
            some: line("some")?,
            full: line("full"),
        })
    }
}

/// `avg10=0.00 avg60=0.00 avg300=0.00 total=0`
fn waits<'a>(words: impl Iterator<Item = &'a str>) -> Option<Waits> {
    let mut waits = Waits::default();
    let mut has_total = false;
    for word in words {
        let (key, value) = word.split_once('=')?;
        let percent = || {
            value
                .parse::<f64>()
                .ok()
                .filter(|percent| percent.is_finite())
        };
        match key {
            "avg10" => waits.avg10 = percent()?,
            "avg60" => waits.avg60 = percent()?,
            "avg300" => waits.avg300 = percent()?,
            "total" => {
                waits.total = Duration::from_micros(value.parse().ok()?);
                has_total = true;
            }
            _ => {}
        }
    }
    has_total.then_some(waits)
}

/// Becomes readable ([`POLLPRI`](rustix::event::PollFlags::PRI)) each time that there was so much
/// waiting.
#[derive(Debug)]
pub struct Trigger(OwnedFd);

impl AsFd for Trigger {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Cgroup {
    /// How long its processes waited; `None` where this host does not tell.
    pub fn pressure(&self, of: Resource) -> Result<Option<Pressure>> {
        let Some(dir) = self.v2() else {
            return Ok(None);
        };
        let Some(text) = dir.read_if(of.file())? else {
            return Ok(None);
        };
        match Pressure::parse(&text) {
            Some(pressure) => Ok(Some(pressure)),
            None => Err(Error::Content {
                path: dir.path.join(of.file()),
                wanted: "pressure",
                text,
            }),
        }
    }

    /// Asks for a word each time that processes waited for `waited` in all within `window`.
    ///
    /// The kernel takes windows of 0.5 to 10 s, without `CAP_SYS_RESOURCE` multiples of 2 s.
    pub fn watch(
        &self,
        of: Resource,
        share: Share,
        waited: Duration,
        window: Duration,
    ) -> Result<Trigger> {
        const NONE: Error = Error::Unsupported {
            what: "pressure",
            why: "there is no cgroup v2 hierarchy, or the kernel has it switched off (psi=1)",
        };
        let dir = self.v2().ok_or(NONE)?;
        if dir.read_if(of.file())?.is_none() {
            return Err(NONE);
        }
        let fd = dir.open(of.file(), OFlags::RDWR | OFlags::NONBLOCK)?;
        // The kernel wants the NUL.
        let line = format!("{share} {} {}\0", waited.as_micros(), window.as_micros());
        write_whole(&fd, &line)
            .map_err(|errno| fault("set a trigger in", &dir.path.join(of.file()), errno))?;
        Ok(Trigger(fd))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_the_kernel_prints_is_read(a in 0_u32..10_000, b in 0_u32..10_000, total: u32) {
            let percent = |hundredths| format!("{}.{:02}", hundredths / 100, hundredths % 100);
            let line = format!(
                "avg10={} avg60={} avg300=0.00 total={total}", percent(a), percent(b)
            );
            let read = Pressure::parse(&format!("some {line}\nfull {line}\n")).unwrap_or_default();
            let wanted = Waits {
                avg10: f64::from(a) / 100.0,
                avg60: f64::from(b) / 100.0,
                avg300: 0.0,
                total: Duration::from_micros(total.into()),
            };
            prop_assert_eq!(read, Pressure { some: wanted, full: Some(wanted) });
            let old = Pressure::parse(&format!("some {line}\n")).and_then(|old| old.full);
            prop_assert_eq!(old, None);
        }

        #[test]
        fn any_text_is_read_without_harm(
            text in "(some|full|x)( (avg10|total|x)=[0-9.infaNe+-]{0,12}){0,4}\n?.{0,40}",
        ) {
            if let Some(read) = Pressure::parse(&text) {
                prop_assert!(read.some.avg10.is_finite());
            }
        }
    }
}
