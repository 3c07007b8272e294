//! What happens to a cgroup, told by a file descriptor: out of memory, empty, not empty.
//!
//! cgroups-rs starts a thread for each cgroup, and on v2 opens files of v1.

use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::OFlags;
use rustix::io::{Errno, retry_on_intr};

use super::dir::{Dir, fault, read_whole};
use super::error::{Error, Result};
use super::flat;
use super::group::{Cgroup, populated};
use super::layout::{Controller, Version};

/// What happened since the last look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Happened {
    /// Memory ran out. On v1 this comes before the kill, which a later look tells.
    pub out_of_memory: bool,
    /// Processes killed for want of memory.
    pub kills: u64,
    /// Whether processes are in it now; `None` where that did not change, or is not told.
    pub populated: Option<bool>,
    /// The cgroup is no longer there.
    pub gone: bool,
}

/// Readable when there is something to tell.
#[derive(Debug)]
pub struct Events {
    /// Of all the others, so that there is one to wait for.
    epoll: OwnedFd,
    memory: Option<MemoryEvents>,
    tasks: Option<Tasks>,
}

#[derive(Debug)]
struct MemoryEvents {
    /// `memory.events`, or v1's `memory.oom_control`.
    file: OwnedFd,
    /// v1's notice.
    notice: Option<OwnedFd>,
    kills: u64,
    ooms: u64,
}

#[derive(Debug)]
struct Tasks {
    file: OwnedFd,
    populated: Option<bool>,
}

impl AsFd for Events {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}

impl Cgroup {
    /// Begins to listen. What happened before is not told.
    pub fn events(&self) -> Result<Events> {
        let failed = |errno| fault("listen to", self.path(), errno);
        let epoll = epoll::create(CreateFlags::CLOEXEC).map_err(failed)?;
        let add = |fd: &OwnedFd, flags| {
            epoll::add(&epoll, fd, EventData::new_u64(0), flags | EventFlags::ET).map_err(failed)
        };
        let memory = self
            .carrier(Controller::Memory)
            .map(|dir| match dir.version {
                Version::V1 => memory_v1(dir),
                Version::V2 => memory_v2(dir),
            });
        let memory = memory.transpose()?;
        if let Some(memory) = &memory {
            match &memory.notice {
                Some(notice) => add(notice, EventFlags::IN)?,
                None => add(&memory.file, EventFlags::PRI)?,
            }
        }
        let tasks = self.v2().map(|dir| {
            let file = dir.open("cgroup.events", OFlags::RDONLY)?;
            let text = read_whole(&file).map_err(failed)?;
            add(&file, EventFlags::PRI)?;
            Ok::<_, Error>(Tasks {
                file,
                populated: populated(&text),
            })
        });
        let tasks = tasks.transpose()?;
        Ok(Events {
            epoll,
            memory,
            tasks,
        })
    }
}

fn memory_v2(dir: &Dir) -> Result<MemoryEvents> {
    let file = dir.open("memory.events", OFlags::RDONLY)?;
    let text = read_whole(&file).map_err(|errno| fault("read", &dir.path, errno))?;
    Ok(MemoryEvents {
        file,
        notice: None,
        kills: flat::value(&text, "oom_kill").unwrap_or(0),
        ooms: flat::value(&text, "oom").unwrap_or(0),
    })
}

fn memory_v1(dir: &Dir) -> Result<MemoryEvents> {
    let file = dir.open("memory.oom_control", OFlags::RDONLY)?;
    let failed = |errno| fault("listen to", &dir.path, errno);
    let notice = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(failed)?;
    let line = format!("{} {}", notice.as_raw_fd(), file.as_raw_fd());
    dir.write("cgroup.event_control", &line)?;
    let text = read_whole(&file).map_err(failed)?;
    Ok(MemoryEvents {
        file,
        notice: Some(notice),
        kills: flat::value(&text, "oom_kill").unwrap_or(0),
        ooms: 0,
    })
}

impl Events {
    /// What happened since the last look. Does not wait.
    pub fn look(&mut self) -> Result<Happened> {
        let mut happened = Happened::default();
        self.forget();
        if let Some(memory) = &mut self.memory {
            memory.look(&mut happened)?;
        }
        if let Some(tasks) = &mut self.tasks {
            match read_whole(&tasks.file) {
                Err(Errno::NODEV) => happened.gone = true,
                text => {
                    let now = populated(&text.map_err(unreadable)?);
                    happened.populated = now.filter(|_| now != tasks.populated);
                    tasks.populated = now;
                }
            }
        }
        Ok(happened)
    }

    /// Takes what made it readable; before the files are read, so that nothing falls between.
    fn forget(&self) {
        let mut few = [const { std::mem::MaybeUninit::uninit() }; 4];
        let now = rustix::event::Timespec::default();
        let _ = retry_on_intr(|| epoll::wait(&self.epoll, &mut few, Some(&now)).map(|_| ()));
    }
}

impl MemoryEvents {
    fn look(&mut self, happened: &mut Happened) -> Result<()> {
        if let Some(notice) = &self.notice {
            let mut count = [0; 8];
            happened.out_of_memory = matches!(rustix::io::read(notice, &mut count), Ok(8));
        }
        match read_whole(&self.file) {
            Err(Errno::NODEV) => {
                // v1 gives a last notice when the cgroup is removed.
                *happened = Happened {
                    gone: true,
                    ..Happened::default()
                };
            }
            text => {
                let text = text.map_err(unreadable)?;
                let kills = flat::value(&text, "oom_kill").unwrap_or(0);
                let ooms = flat::value(&text, "oom").unwrap_or(0);
                happened.kills = kills.saturating_sub(self.kills);
                happened.out_of_memory |= ooms > self.ooms || happened.kills > 0;
                (self.kills, self.ooms) = (kills, ooms);
            }
        }
        Ok(())
    }
}

fn unreadable(errno: Errno) -> Error {
    fault("read", "the events of a cgroup".as_ref(), errno)
}
