//! One instance of a function, from when it is to be started until nothing is left of it.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use hearth_runtime::id::SandboxId;
use hearth_runtime::pool::Instance;
use hearth_runtime::sandbox::ask::Claimed;
use hearth_runtime::sandbox::backend::{Cancel, Sandbox, SandboxError};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::super::function::Function;
use super::super::invocation::{Origin, Step};
use super::super::manager::lock;
use super::super::store::Deployed;
use crate::time::Boottime;

/// One instance.
pub(in super::super) struct Live {
    pub(in super::super) instance: Instance,
    pub(in super::super) function: Arc<Function>,
    /// The version that runs in it.
    pub(in super::super) deployed: Arc<Deployed>,
    /// Its layers on this node.
    pub(in super::super) layers: Vec<PathBuf>,
    about: OnceLock<About>,
    sandbox: Mutex<Option<Box<dyn Sandbox>>>,
    birth: Mutex<Option<Birth>>,
    /// The memory that it may have.
    limit: OnceLock<u64>,
    /// That it has ended was seen.
    is_over: AtomicBool,
    is_unweighed: AtomicBool,
}

/// What is told of a sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct About {
    /// Which.
    pub id: SandboxId,
    /// Its slot.
    pub slot: String,
    /// Its cgroup, below the hierarchy that carries memory; none where it is not known.
    pub cgroup: Option<String>,
    /// Its first process, as the node sees it.
    pub pid: u32,
    /// When the agent got it.
    pub began: SystemTime,
    /// The same since the node booted; none of one that was there before.
    pub claimed: Option<Boottime>,
}

/// One that was there before.
pub(in super::super) struct Found {
    pub(in super::super) function: Arc<Function>,
    pub(in super::super) deployed: Arc<Deployed>,
    pub(in super::super) about: About,
    pub(in super::super) sandbox: Box<dyn Sandbox>,
}

/// What an instance does.
#[derive(Clone, Debug)]
pub(super) enum Doing {
    /// It is being started.
    Starting,
    /// It waits for work.
    Idle,
    /// It is at work on a request, which this cancels.
    Busy(Cancel),
    /// It is to end.
    Retired,
}

/// How an instance came up.
#[derive(Clone, Debug)]
pub(in super::super) struct Birth {
    pub(in super::super) origin: Origin,
    /// When its sandbox was claimed, if it was.
    pub(in super::super) claimed: Option<Boottime>,
    /// The memory that it may have, as it was read back.
    pub(super) memory_bytes: Option<u64>,
    pub(super) stages: Vec<Stage>,
}

/// One step of a start.
#[derive(Clone, Debug)]
pub(super) struct Stage {
    pub(super) name: String,
    pub(super) begin: Instant,
    pub(super) length: Duration,
}

impl Birth {
    pub(super) const fn new() -> Self {
        Self {
            origin: Origin::Fresh,
            claimed: None,
            memory_bytes: None,
            stages: Vec::new(),
        }
    }

    pub(super) fn stage(&mut self, name: &str, begin: Instant) {
        self.stages.push(Stage {
            name: name.to_owned(),
            begin,
            length: begin.elapsed(),
        });
    }

    /// When it began, after a request came in then.
    pub(in super::super) fn begin(&self, request: Instant) -> Duration {
        let first = self.stages.first().map(|stage| stage.begin);
        first.unwrap_or(request).saturating_duration_since(request)
    }

    /// As much of it as a request that came in then had to wait for.
    pub(in super::super) fn steps(&self, request: Instant) -> impl Iterator<Item = Step> {
        self.stages.iter().filter_map(move |stage| {
            let end = stage.begin + stage.length;
            let from = stage.begin.max(request);
            (end > request || stage.begin >= request).then(|| Step {
                name: stage.name.clone(),
                begin: from - request,
                length: end.saturating_duration_since(from),
            })
        })
    }
}

impl About {
    pub(super) fn of(claimed: &Claimed, at: Boottime) -> Self {
        Self {
            id: claimed.sandbox,
            slot: claimed.slot.to_string(),
            cgroup: Some(claimed.cgroup.clone()),
            pid: claimed.init.pid,
            began: SystemTime::now(),
            claimed: Some(at),
        }
    }
}

impl Live {
    /// One that is to be started, as its function is deployed now.
    pub(super) fn new(instance: Instance, function: &Arc<Function>) -> Self {
        let state = function.state();
        Self {
            instance,
            deployed: Arc::clone(&state.deployed),
            layers: state.layers.clone(),
            function: Arc::clone(function),
            about: OnceLock::new(),
            sandbox: Mutex::default(),
            birth: Mutex::default(),
            limit: OnceLock::new(),
            is_over: AtomicBool::new(false),
            is_unweighed: AtomicBool::new(true),
        }
    }

    /// One that was there before.
    pub(super) fn found(instance: Instance, found: Found) -> Self {
        Self {
            instance,
            function: found.function,
            deployed: found.deployed,
            layers: Vec::new(),
            about: OnceLock::from(found.about),
            sandbox: Mutex::new(Some(found.sandbox)),
            birth: Mutex::default(),
            limit: OnceLock::new(),
            is_over: AtomicBool::new(false),
            is_unweighed: AtomicBool::new(true),
        }
    }

    /// Its sandbox, as soon as there is one.
    pub(in super::super) fn about(&self) -> Option<&About> {
        self.about.get()
    }

    /// Its sandbox's id, as soon as there is one.
    pub(in super::super) fn id(&self) -> Option<SandboxId> {
        self.about().map(|about| about.id)
    }

    /// This is its sandbox.
    pub(super) fn is_at(&self, about: About) {
        // It gets one once.
        let _ = self.about.set(about);
    }

    /// It is given so much memory.
    pub(super) fn is_limited(&self, bytes: u64) {
        let _ = self.limit.set(bytes);
    }

    /// The memory that it may have.
    pub(in super::super) fn limit(&self) -> u64 {
        let declared = self.deployed.definition.memory.0;
        self.limit.get().copied().unwrap_or(declared)
    }

    /// It has ended; whether that is news.
    pub(super) fn has_ended(&self) -> bool {
        !self.is_over.swap(true, Ordering::Relaxed)
    }

    /// It is up.
    pub(super) fn is_up(&self, sandbox: Box<dyn Sandbox>, birth: Birth) {
        *self.sandbox() = Some(sandbox);
        *lock(&self.birth) = Some(birth);
    }

    /// It did something that may have changed what it weighs.
    pub(super) fn is_to_be_weighed(&self) {
        self.is_unweighed.store(true, Ordering::Relaxed);
    }

    /// Whether it is to be weighed, told once.
    pub(super) fn is_unweighed(&self) -> bool {
        self.is_unweighed.swap(false, Ordering::Relaxed)
    }

    /// How it came up, told once.
    pub(super) fn take_birth(&self) -> Option<Birth> {
        lock(&self.birth).take()
    }

    /// To speak with it: one at a time.
    pub(in super::super) fn sandbox(&self) -> MutexGuard<'_, Option<Box<dyn Sandbox>>> {
        lock(&self.sandbox)
    }

    /// Whether it is there still; takes in what it says unasked. Who speaks with it keeps it.
    pub(in super::super) fn listen(&self) -> Result<(), SandboxError> {
        let Ok(mut sandbox) = self.sandbox.try_lock() else {
            return Ok(());
        };
        let (Some(sandbox), Some(id)) = (sandbox.as_mut(), self.id()) else {
            return Ok(());
        };
        if !has_something(&**sandbox) {
            return Ok(());
        }
        sandbox.listen(&mut |told| self.function.hear(id, told))
    }
}

/// Whether it has written something, or its other end is gone.
fn has_something(sandbox: &dyn Sandbox) -> bool {
    let mut descriptor = [PollFd::from_borrowed_fd(sandbox.as_fd(), PollFlags::IN)];
    let at_once = Timespec::default();
    poll(&mut descriptor, Some(&at_once)).is_ok_and(|ready| ready > 0)
}
