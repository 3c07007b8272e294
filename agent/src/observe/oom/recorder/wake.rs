//! What wakes the recorder between two rounds.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::event::{EventfdFlags, Timespec, eventfd};

use crate::time::Nanos;

/// Key of the directories' changes.
pub(super) const TREE: u64 = u64::MAX;
/// Key of the end.
const STOP: u64 = u64::MAX - 1;
/// Events taken at once; the rest come at the next turn.
const EVENTS: usize = 64;

/// The files that wake, by the key under which they do: a cgroup's id, or one of the above.
/// Each wakes once and has to be [asked again](Self::again): what happens a hundred times a
/// second is looked at a few times a second.
#[derive(Debug)]
pub(super) struct Wake {
    epoll: OwnedFd,
    stop: Arc<OwnedFd>,
}

impl Wake {
    /// Waits for nothing yet, but the end.
    pub(super) fn new() -> io::Result<Self> {
        let stop = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &stop, EventData::new_u64(STOP), EventFlags::IN)?;
        Ok(Self {
            epoll,
            stop: Arc::new(stop),
        })
    }

    /// What ends the thread when it is written to.
    pub(super) fn stop(&self) -> Arc<OwnedFd> {
        Arc::clone(&self.stop)
    }

    /// Waits for `file` from now on.
    pub(super) fn add(&self, file: impl AsFd, key: u64, kind: Kind) -> io::Result<()> {
        epoll::add(&self.epoll, file, EventData::new_u64(key), kind.flags())?;
        Ok(())
    }

    /// Waits for `file` once more.
    pub(super) fn again(&self, file: impl AsFd, key: u64, kind: Kind) {
        // A file that is gone does not wake any more.
        let _ = epoll::modify(&self.epoll, file, EventData::new_u64(key), kind.flags());
    }

    /// Waits for at most `limit`. The keys of what woke; `None` is the end.
    pub(super) fn wait(&self, limit: Nanos) -> Option<Vec<u64>> {
        let limit = Timespec {
            tv_sec: i64::try_from(limit.0 / 1_000_000_000).unwrap_or(i64::MAX),
            tv_nsec: i64::try_from(limit.0 % 1_000_000_000).unwrap_or(0),
        };
        let mut events: Vec<Event> = Vec::with_capacity(EVENTS);
        // Interrupted or not: the rounds go on.
        let _ = epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&limit));
        let keys: Vec<_> = events.iter().map(|event| event.data.u64()).collect();
        (!keys.contains(&STOP)).then_some(keys)
    }
}

/// How a file tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// There is something to read.
    Readable,
    /// Something happened (`POLLPRI`), as pressure files tell.
    Happened,
}

impl Kind {
    const fn flags(self) -> EventFlags {
        match self {
            Self::Readable => EventFlags::IN.union(EventFlags::ONESHOT),
            Self::Happened => EventFlags::PRI.union(EventFlags::ONESHOT),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_wakes_does_so_once_and_again_when_asked() {
        let wake = Wake::new().expect("an epoll");
        let file = eventfd(1, EventfdFlags::NONBLOCK).expect("an eventfd");
        wake.add(&file, 7, Kind::Readable).expect("added");
        let short = Nanos(1_000_000);
        assert_eq!(wake.wait(short), Some(vec![7]));
        assert_eq!(wake.wait(short), Some(vec![]));
        wake.again(&file, 7, Kind::Readable);
        assert_eq!(wake.wait(short), Some(vec![7]));
        rustix::io::write(&*wake.stop(), &1u64.to_ne_bytes()).expect("written");
        assert_eq!(wake.wait(short), None);
    }
}
