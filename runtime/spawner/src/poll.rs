//! What the spawner waits for.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;

/// Who has something to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// Somebody wants to connect.
    Listener,
    /// A signal came.
    Signals,
    /// A client sent something, or takes something, or is gone.
    Client(u32),
    /// The `hearth-init` in this slot has ended, and is no child of ours.
    Adopted(u32),
    /// The `hearth-init` in this slot says that it is parked, or why it is not.
    Control(u32),
}

impl Source {
    fn token(self) -> EventData {
        let (kind, number) = match self {
            Self::Listener => (0_u64, 0),
            Self::Signals => (1, 0),
            Self::Client(number) => (2, number),
            Self::Adopted(number) => (3, number),
            Self::Control(number) => (4, number),
        };
        EventData::new_u64(kind << 32 | u64::from(number))
    }

    fn of(token: u64) -> Option<Self> {
        let number = u32::try_from(token & u64::from(u32::MAX)).unwrap_or(0);
        Some(match token >> 32 {
            0 => Self::Listener,
            1 => Self::Signals,
            2 => Self::Client(number),
            3 => Self::Adopted(number),
            4 => Self::Control(number),
            _ => return None,
        })
    }
}

/// All sources.
#[derive(Debug)]
pub(crate) struct Poll(OwnedFd);

impl Poll {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self(epoll::create(CreateFlags::CLOEXEC)?))
    }

    pub(crate) fn add(&self, fd: impl AsFd, source: Source) -> io::Result<()> {
        Ok(epoll::add(&self.0, fd, source.token(), EventFlags::IN)?)
    }

    /// Waits for space, too, or no longer.
    pub(crate) fn also_out(&self, fd: impl AsFd, source: Source, out: bool) -> io::Result<()> {
        let mut flags = EventFlags::IN;
        flags.set(EventFlags::OUT, out);
        Ok(epoll::modify(&self.0, fd, source.token(), flags)?)
    }

    /// To be called before `fd` is closed: a child that has not yet run its program has it too.
    pub(crate) fn remove(&self, fd: impl AsFd) {
        let _ = epoll::delete(&self.0, fd);
    }

    /// Some of those that have something to say, at the latest after `patience`.
    pub(crate) fn wait(&self, patience: Option<Duration>) -> io::Result<Vec<Source>> {
        let patience = patience.map(|patience| {
            // The kernel takes milliseconds: what is due soon is not waited for in circles.
            let millis = patience.as_micros().div_ceil(1000).min(60_000);
            let millis = u64::try_from(millis).unwrap_or(60_000);
            Timespec::try_from(Duration::from_millis(millis)).unwrap_or_default()
        });
        let mut space = [const { MaybeUninit::<Event>::uninit() }; 64];
        match epoll::wait(&self.0, &mut space, patience.as_ref()) {
            Ok((events, _)) => Ok(events
                .iter()
                .filter_map(|event| Source::of(event.data.u64()))
                .collect()),
            Err(Errno::INTR) => Ok(Vec::new()),
            Err(error) => Err(error.into()),
        }
    }
}
