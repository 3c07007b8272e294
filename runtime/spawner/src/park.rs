//! Sandboxes that are made ahead: nothing of one is there before it is in the journal.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::{Duration, Instant};

use hearth_runtime::cgroup;
use hearth_runtime::id::{Epoch, SandboxId};
use hearth_runtime::journal::{Entry, JournalError};
use hearth_runtime::process::Process;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use crate::clients::Clients;
use crate::log::say;
use crate::poll::Source;
use crate::sandbox::{Init, Sandbox, State, slot_name};
use crate::spawner::Spawner;

/// How long `hearth-init` may take to prepare: a loaded, emulated machine takes a while.
const PREPARE: Duration = Duration::from_secs(30);
/// So many prepare at once, where nobody waits for them.
const AT_ONCE: usize = 2;
/// What `hearth-init` says on the control socket at most.
const MESSAGE: usize = 1024;
/// Connections that may wait for `hearth-init` to take them.
const BACKLOG: i32 = 8;

/// Why there is no new sandbox.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ParkError {
    #[error(
        "{held} cgroups are in use or not clean yet, and there are descriptors and addresses for {most}: raise the limit of open files (systemd: LimitNOFILE=), or use larger --addresses"
    )]
    Full { held: usize, most: usize },
    #[error(transparent)]
    Cgroup(#[from] cgroup::Error),
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error("cannot {what}: {error}{}", remedy(.error))]
    Io {
        what: &'static str,
        error: io::Error,
    },
}

fn remedy(error: &io::Error) -> &'static str {
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::NOSPC) => ": too many namespaces, see /proc/sys/user/max_*_namespaces",
        Some(Errno::AGAIN) => ": too many processes, see pids.max and /proc/sys/kernel/pid_max",
        Some(Errno::MFILE) => ": raise the limit of open files (systemd: LimitNOFILE=)",
        _ => "",
    }
}

fn failed<E: Into<io::Error>>(what: &'static str) -> impl Fn(E) -> ParkError {
    move |error| ParkError::Io {
        what,
        error: error.into(),
    }
}

impl Spawner {
    /// One thing that need not be done now. What is missing to the parked ones comes first.
    pub(crate) fn work_ahead(&mut self, clients: &mut Clients) {
        if self.is_parking_due() {
            if let Err(error) = self.park() {
                self.parking_failed(&error.to_string(), clients);
            }
        } else if self.parked.len() > self.slots
            && let Some(number) = self.parked.pop_front()
        {
            // Whoever wanted it is gone.
            self.end(number, false);
        } else if let Err(error) = self.pool.step() {
            say!("{error}");
            self.trouble.begin();
        }
    }

    /// When there will be something to do ahead.
    pub(crate) fn due(&self) -> Option<Instant> {
        if self.is_parking_due() {
            return Some(Instant::now());
        }
        match self.trouble.until {
            Some(until) if !self.trouble.is_over() => Some(until),
            _ => self.pool.due(),
        }
    }

    fn is_parking_due(&self) -> bool {
        let (parking, wanted) = (self.parking(), self.wanted.len());
        let ahead = self.parked.len() + parking.saturating_sub(wanted);
        let is_missing = ahead < self.slots && parking < AT_ONCE + wanted;
        self.trouble.is_over() && (parking < wanted || is_missing)
    }

    /// How many are being prepared.
    pub(crate) fn parking(&self) -> usize {
        let all = self.sandboxes.values();
        all.filter(|one| matches!(one.state, State::Parking { .. }))
            .count()
    }

    /// Begins one. What has been made of it when something fails is taken away like any other.
    pub(crate) fn park(&mut self) -> Result<(), ParkError> {
        if self.held() >= self.most && self.pool.ready() == 0 {
            return Err(ParkError::Full {
                held: self.held(),
                most: self.most,
            });
        }
        let slot = self.pool.take()?;
        let name = slot_name(slot.cgroup.name());
        let (Some(name), Ok(id)) = (name, SandboxId::random()) else {
            self.pool.give_back(slot);
            return Err(failed("name a sandbox")(Errno::IO));
        };
        let sandbox = Sandbox {
            id,
            epoch: Epoch(1),
            name,
            slot,
            init: None,
            function: None,
            adopted: false,
            state: State::Begun,
        };
        if let Err(error) = self.journal.append(Entry::Begin(sandbox.life())) {
            self.pool.give_back(sandbox.slot);
            return Err(error.into());
        }
        self.by_id.insert(id, name.0);
        self.sandboxes.insert(name.0, sandbox);
        let born = self.bear(name.0);
        if born.is_err() {
            self.end(name.0, false);
        }
        born
    }

    fn bear(&mut self, number: u32) -> Result<(), ParkError> {
        let Some(sandbox) = self.sandboxes.get_mut(&number) else {
            return Ok(());
        };
        let listener = listen(&self.places.sandbox(sandbox.id))
            .map_err(failed("make the socket of a sandbox"))?;
        let link = match &mut self.veth {
            Some(veth) => Some(veth.free().map_err(failed("find a free address"))?),
            None => None,
        };
        let child = self
            .program
            .spawn(
                sandbox.id,
                Sandbox::uid(sandbox.name),
                link,
                &sandbox.slot.cgroup,
                listener.as_fd(),
            )
            .map_err(failed("start a process in new namespaces"))?;
        let process = Process::of(child.pid).map_err(failed("look at a new process"))?;
        let process = process.ok_or_else(|| failed("look at a new process")(Errno::SRCH))?;
        sandbox.init = Some(Init {
            process,
            pidfd: child.pidfd,
            is_child: true,
            exit: None,
        });
        self.journal.append(Entry::Spawned {
            sandbox: sandbox.id,
            epoch: sandbox.epoch,
            process,
        })?;
        if let (Some(veth), Some(link)) = (&mut self.veth, link) {
            veth.make(link, child.pid)
                .map_err(failed("make a link to the bridge of --veth"))?;
        }
        self.poll
            .add(&child.control, Source::Control(number))
            .map_err(failed("listen to a new sandbox"))?;
        // Where it has ended already, what it said of that is in there.
        let _ = rustix::io::write(&child.control, b"g");
        sandbox.state = State::Parking {
            control: child.control,
            until: Instant::now() + PREPARE,
        };
        Ok(())
    }

    /// What comes from one that is being prepared.
    pub(crate) fn hear(&mut self, number: u32, clients: &mut Clients) {
        let Some(sandbox) = self.sandboxes.get_mut(&number) else {
            return;
        };
        let State::Parking { control, .. } = &sandbox.state else {
            return;
        };
        let mut bytes = [0; MESSAGE];
        let mut heard = rustix::io::read(control, &mut bytes[..]);
        if matches!(heard, Err(Errno::CONNRESET)) {
            // It ended before it took what we said; what it said itself comes after this.
            heard = rustix::io::read(control, &mut bytes[..]);
        }
        let why = match heard {
            Err(Errno::AGAIN | Errno::INTR) => return,
            Ok(1..) if bytes.starts_with(b"p") => return self.is_parked(number, clients),
            Ok(length @ 1..) if bytes.starts_with(b"e") => {
                let text = bytes.get(1..length).unwrap_or_default();
                String::from_utf8_lossy(text).into_owned()
            }
            // How it ended is told when it is reaped.
            Ok(0) => return self.poll.remove(control),
            Ok(_) => "it says what no hearth-init says: is it of another version?".to_owned(),
            Err(error) => error.to_string(),
        };
        self.end(number, false);
        self.parking_failed(&format!("hearth-init could not prepare: {why}"), clients);
    }

    fn is_parked(&mut self, number: u32, clients: &mut Clients) {
        let Some(sandbox) = self.sandboxes.get_mut(&number) else {
            return;
        };
        if let Err(error) = sandbox.slot.count_anew() {
            self.end(number, false);
            return self.parking_failed(&error.to_string(), clients);
        }
        let before = std::mem::replace(&mut sandbox.state, State::Begun);
        if let State::Parking { control, .. } = before {
            // From now on its end is told by the kernel, as a child's.
            self.poll.remove(&control);
            sandbox.state = State::Parked { control };
        }
        self.trouble = crate::spawner::Trouble::default();
        self.parked.push_back(number);
        self.serve_wanted(clients);
    }

    /// One claim that waits is told; it is tried again after a while.
    pub(crate) fn parking_failed(&mut self, why: &str, clients: &mut Clients) {
        say!("no new sandbox: {why}");
        self.trouble.begin();
        self.refuse_first(why, clients);
    }
}

/// A socket at `path` that only we can connect to.
pub(crate) fn listen(path: &std::path::Path) -> rustix::io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    // Before it has a name, so that it never has one with another mode.
    rustix::fs::fchmod(&socket, rustix::fs::Mode::from_raw_mode(0o600))?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(socket)
}
