//! One function that is deployed: its sandboxes, and who waits for one.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use hearth_runtime::id::{RequestId, SandboxId};
use hearth_runtime::sandbox::backend::{Cancel, Sandbox, Told};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::sync::{Semaphore, watch};

use super::logs::{Logs, Output};
use super::store::Deployed;

/// Names of refused calls that are counted; a kernel has some 400.
const MAX_REFUSED: usize = 512;

/// A sandbox that waits for work.
pub(super) struct Idle {
    pub(super) sandbox: Box<dyn Sandbox>,
    pub(super) about: About,
    pub(super) since: Instant,
}

/// What is told of a sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct About {
    /// Which.
    pub id: SandboxId,
    /// The version that runs in it.
    pub version: u32,
    /// Its slot.
    pub slot: String,
    /// Its first process, as the node sees it.
    pub pid: u32,
    /// When the agent got it.
    pub began: SystemTime,
}

/// A request that is under way.
#[derive(Debug)]
pub(super) struct Busy {
    pub(super) version: u32,
    pub(super) cancel: Cancel,
    /// None while there is none yet.
    pub(super) about: Option<About>,
}

/// One function.
pub(super) struct Function {
    pub(super) logs: Logs,
    state: Mutex<State>,
    /// Counts changes of what is at work; for who waits until nothing is.
    pub(super) changed: watch::Sender<u64>,
}

/// What of it changes.
pub(super) struct State {
    pub(super) deployed: Arc<Deployed>,
    /// Its layers on this node.
    pub(super) layers: Vec<PathBuf>,
    /// One for each request that may be under way.
    pub(super) permits: Arc<Semaphore>,
    /// The one that was used last is at the end.
    pub(super) idle: VecDeque<Idle>,
    pub(super) busy: HashMap<RequestId, Busy>,
    pub(super) counts: Counts,
    /// Calls that were refused to its code, by name.
    pub(super) refused: BTreeMap<String, u64>,
    /// It is being removed: what comes back is ended.
    pub(super) is_removed: bool,
}

/// What it did since the agent began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Requests that reached it.
    pub invocations: u64,
    /// Of these, those that it answered.
    pub answered: u64,
    /// Starts of it.
    pub starts: u64,
}

impl Function {
    pub(super) fn new(deployed: Arc<Deployed>, layers: Vec<PathBuf>) -> Self {
        Self {
            logs: Logs::default(),
            state: Mutex::new(State {
                permits: permits(&deployed),
                deployed,
                layers,
                idle: VecDeque::new(),
                busy: HashMap::new(),
                counts: Counts::default(),
                refused: BTreeMap::new(),
                is_removed: false,
            }),
            changed: watch::Sender::new(0),
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on this version; what is idle with another one is given out, to be ended.
    pub(super) fn replace(&self, deployed: Arc<Deployed>, layers: Vec<PathBuf>) -> Vec<SandboxId> {
        let mut state = self.state();
        if state.deployed.definition.max_instances != deployed.definition.max_instances {
            state.permits = permits(&deployed);
        }
        let version = deployed.version;
        state.deployed = deployed;
        state.layers = layers;
        state.take_idle(|idle| idle.about.version != version)
    }

    /// Takes note of what a sandbox says.
    pub(super) fn hear(&self, sandbox: SandboxId, told: Told<'_>) {
        match told {
            Told::Log {
                stream,
                bytes,
                dropped,
            } => self.logs.push(sandbox, stream.into(), bytes, dropped),
            Told::Refused(calls) => {
                let mut state = self.state();
                for (name, times) in calls {
                    if state.refused.contains_key(name) || state.refused.len() < MAX_REFUSED {
                        *state.refused.entry(name.clone()).or_default() += times;
                    }
                }
                let names: Vec<&str> = calls.keys().map(String::as_str).collect();
                let text = format!(
                    "refused, as sandboxed code may not do this: {}\n",
                    names.join(", ")
                );
                let bytes = text.as_bytes();
                self.logs.push(sandbox, Output::Hearth, bytes, 0);
            }
        }
    }

    /// The request is over. Its sandbox waits for the next one where it can; else it is to be
    /// ended.
    pub(super) fn give_back(&self, request: RequestId, idle: Option<Idle>) -> Option<SandboxId> {
        let mut state = self.state();
        state.busy.remove(&request);
        let idle = idle?;
        if state.is_removed || idle.about.version != state.deployed.version {
            return Some(idle.about.id);
        }
        state.idle.push_back(idle);
        None
    }

    /// Takes out the idle ones that have something to say, or have ended.
    pub(super) fn take_speaking(&self) -> Vec<Idle> {
        let mut state = self.state();
        let all = std::mem::take(&mut state.idle);
        let (speaking, silent) = all
            .into_iter()
            .partition(|idle| has_something(&*idle.sandbox));
        state.idle = silent;
        Vec::from(speaking)
    }

    /// Puts one back; where it is of no use any more it is to be ended.
    pub(super) fn put_back(&self, idle: Idle) -> Option<SandboxId> {
        let mut state = self.state();
        if state.is_removed || idle.about.version != state.deployed.version {
            return Some(idle.about.id);
        }
        state.idle.push_front(idle);
        None
    }

    /// Tells who waits for it that something is over.
    pub(super) fn tell_change(&self) {
        self.changed.send_modify(|count| *count += 1);
    }
}

impl State {
    /// Takes those out of the idle ones that `wanted` names.
    pub(super) fn take_idle(&mut self, wanted: impl Fn(&Idle) -> bool) -> Vec<SandboxId> {
        let mut taken = Vec::new();
        self.idle.retain(|idle| {
            let is_wanted = wanted(idle);
            if is_wanted {
                taken.push(idle.about.id);
            }
            !is_wanted
        });
        taken
    }

    /// Sandboxes that are at work, or starting.
    pub(super) fn busy_sandboxes(&self) -> Vec<SandboxId> {
        let busy = self.busy.values();
        busy.filter_map(|busy| busy.about.as_ref().map(|about| about.id))
            .collect()
    }

    /// The longest that a request may take.
    pub(super) fn timeout(&self) -> Duration {
        self.deployed.definition.timeout.0
    }
}

/// Whether it has written something, or its other end is gone.
pub(super) fn has_something(sandbox: &dyn Sandbox) -> bool {
    let mut descriptor = [PollFd::from_borrowed_fd(sandbox.as_fd(), PollFlags::IN)];
    let at_once = Timespec::default();
    poll(&mut descriptor, Some(&at_once)).is_ok_and(|ready| ready > 0)
}

fn permits(deployed: &Deployed) -> Arc<Semaphore> {
    let most = usize::try_from(deployed.definition.max_instances).unwrap_or(1);
    Arc::new(Semaphore::new(most))
}
