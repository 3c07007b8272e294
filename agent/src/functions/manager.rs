//! Functions and their sandboxes on this node: deployed, invoked, looked at, removed.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use hearth_runtime::id::{FunctionName, RequestId, SandboxId};
use hearth_runtime::sandbox::backend::{Backend as _, Cancel};
use hearth_runtime::sandbox::message::Ask;
use tokio::sync::{OnceCell, oneshot};
use tokio::task::{JoinError, spawn_blocking};
use tokio::time::{sleep, timeout};

use super::clock::{Clock, NodeClock};
use super::definition::Definition;
use super::function::Function;
use super::invocation::{Ending, Invoked, Known, Outcomes};
use super::job::{Job, Worked};
use super::node::{Ends, Node};
use super::pool::{Live, Pools, Recording, Unserved};
use super::problem::{Kind, Problem};
use super::refused::refused;
use super::starts::{Starts, Watcher};
use super::store::{Deployed, InUse, Store};
use super::tally::Came;
use super::workers::Workers;
use crate::heal::Healer;
use crate::heal::audit::Wanted;
use crate::observe::pool::PoolsState;
use crate::time::Boottime;

/// Requests that are at work at once, each on a thread.
const MAX_AT_WORK: usize = 256;
/// How often idle sandboxes are looked at.
const SWEEP: Duration = Duration::from_millis(500);
/// How long a removed function may take to hear that its requests are cancelled.
const HEARING: Duration = Duration::from_secs(2);
/// How long the end of a function's sandboxes may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Functions and their sandboxes.
#[derive(Clone)]
pub struct Manager(pub(super) Arc<Shared>);

pub(super) struct Shared {
    pub(super) node: Arc<Ends>,
    pub(super) pools: Arc<Pools>,
    /// Threads for requests.
    pub(super) working: Workers,
    sees_starts: bool,
    store: Mutex<Store>,
    functions: Mutex<BTreeMap<FunctionName, Arc<Function>>>,
    pub(super) outcomes: Mutex<Outcomes>,
    /// How functions started, where that is seen.
    starts: Starts,
    /// Sandboxes of an agent before this one were looked for: nothing is claimed before.
    pub(super) adopted: OnceCell<()>,
}

/// A request for a function.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// Its id.
    pub id: RequestId,
    /// What goes with the payload.
    pub ask: Ask,
    /// Less time than the function has anyway.
    pub timeout: Option<Duration>,
    /// The payload.
    pub payload: Vec<u8>,
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Manager {
    /// Of what is in `store`, with sandboxes of `node`.
    #[must_use]
    pub fn new(store: Store, node: Arc<dyn Node>, watcher: Option<Arc<dyn Watcher>>) -> Self {
        Self::by(Arc::new(NodeClock), store, node, watcher)
    }

    /// As [`new`](Self::new), by this clock.
    #[must_use]
    pub fn by(
        clock: Arc<dyn Clock>,
        store: Store,
        node: Arc<dyn Node>,
        watcher: Option<Arc<dyn Watcher>>,
    ) -> Self {
        let functions = store.current().map(|deployed| {
            let layers = store.paths(deployed);
            let function = Function::new(Arc::clone(deployed), layers);
            (deployed.name.clone(), Arc::new(function))
        });
        let functions = Mutex::new(functions.collect());
        let node = Arc::new(Ends::new(node));
        Self(Arc::new(Shared {
            functions,
            sees_starts: watcher.is_some(),
            pools: Pools::new(Arc::clone(&node), watcher, clock),
            node,
            working: Workers::new("hearth-request", MAX_AT_WORK),
            store: Mutex::new(store),
            outcomes: Mutex::default(),
            starts: Starts::default(),
            adopted: OnceCell::new(),
        }))
    }

    /// The same, whose faults `healer` decides about.
    #[must_use]
    pub fn healed_by(self, healer: Healer) -> Self {
        {
            let store = lock(&self.0.store);
            healer.keep(|function, version| store.version(function, version).is_some());
        }
        self.0.pools.heal_by(healer);
        self
    }

    /// The functions, by name.
    pub(super) fn functions(&self) -> Vec<Arc<Function>> {
        lock(&self.0.functions).values().cloned().collect()
    }

    pub(super) fn function(&self, name: &FunctionName) -> Result<Arc<Function>, Problem> {
        let functions = lock(&self.0.functions);
        functions.get(name).cloned().ok_or_else(|| {
            let names: Vec<&str> = functions.keys().map(FunctionName::as_str).collect();
            let remedy = if names.is_empty() {
                "none is deployed: `hearth fn deploy` deploys one".to_owned()
            } else {
                let names = names.join(", ");
                format!("there are {}", names.chars().take(500).collect::<String>())
            };
            Problem::new(Kind::UnknownFunction, "no function of this name", remedy)
                .about("name", name)
        })
    }

    /// Deploys a function, or another version of it.
    pub async fn deploy(
        &self,
        name: FunctionName,
        definition: Definition,
    ) -> Result<Arc<Deployed>, Problem> {
        let shared = Arc::clone(&self.0);
        blocking(move || {
            let in_use = shared.in_use();
            let mut store = lock(&shared.store);
            let known = lock(&shared.functions).get(&name).cloned();
            if known.is_some_and(|function| function.state().is_removed) {
                return Err(is_removed(&name));
            }
            let deployed = store.deploy(&name, &definition, &in_use)?;
            let layers = store.paths(&deployed);
            let mut functions = lock(&shared.functions);
            let (function, renew) = if let Some(function) = functions.get(&name) {
                let renew = function.replace(Arc::clone(&deployed), layers);
                (Arc::clone(function), renew)
            } else {
                let function = Arc::new(Function::new(Arc::clone(&deployed), layers));
                functions.insert(name, Arc::clone(&function));
                (function, false)
            };
            drop((functions, store));
            shared.pools.deploy(&function, renew);
            Ok(deployed)
        })
        .await?
    }

    /// Removes a function with all that is of it. What it is at work on is cancelled.
    pub async fn remove(&self, name: &FunctionName) -> Result<(), Problem> {
        let (manager, name) = (self.clone(), name.clone());
        // Whoever asked may go: what is half removed could be neither used nor deployed.
        let removing = tokio::spawn(async move { manager.remove_whole(&name).await });
        removing.await.map_err(|error| unfinished(&error))?
    }

    async fn remove_whole(&self, name: &FunctionName) -> Result<(), Problem> {
        let function = self.function(name)?;
        if std::mem::replace(&mut function.state().is_removed, true) {
            return Err(is_removed(name));
        }
        let mut changed = function.changed.subscribe();
        let pools = &self.0.pools;
        let mut gone = async |patience| {
            let gone = changed.wait_for(|_| pools.is_gone(&function));
            timeout(patience, gone).await.is_ok()
        };
        let (removing, removed) = (Arc::clone(pools), name.clone());
        blocking(move || removing.remove(&removed)).await?;
        if !gone(HEARING).await {
            let (forcing, forced) = (Arc::clone(pools), Arc::clone(&function));
            blocking(move || forcing.force(&forced)).await?;
        }
        if !gone(PATIENCE).await {
            function.state().is_removed = false;
            pools.deploy(&function, false);
            let detail = "its sandboxes have not ended in time";
            let remedy = "try again, and see the log of hearth-spawner";
            return Err(Problem::new(Kind::NoSandbox, detail, remedy).about("name", name));
        }
        let name = name.clone();
        let shared = Arc::clone(&self.0);
        blocking(move || {
            let removed = lock(&shared.store).remove(&name);
            if removed.is_ok() {
                lock(&shared.functions).remove(&name);
                if let Some(healer) = shared.pools.healer() {
                    healer.removed(&name);
                }
            } else {
                function.state().is_removed = false;
                shared.pools.deploy(&function, false);
            }
            removed
        })
        .await?
    }

    /// Has a function do something. Dropping the future before it is ready cancels the request,
    /// and what was begun of it ends with its sandbox.
    pub async fn invoke(&self, name: &FunctionName, request: Request) -> Ending {
        let began = Instant::now();
        self.adopt().await?;
        let function = self.function(name)?;
        let id = request.id;
        lock(&self.0.outcomes).begin(id)?;
        let mut waiting = Waiting {
            shared: Arc::downgrade(&self.0),
            request: id,
            is_over: false,
        };
        let cancel = Cancel::new().map_err(|error| no_thread(&error))?;
        let (allowed, start) = {
            let definition = &function.state().deployed.definition;
            (definition.timeout.0, definition.init_timeout.0)
        };
        let timeout = request.timeout.unwrap_or(allowed).min(allowed);
        // The time of a start is not the request's.
        let patience = timeout + start;
        let mut asked = self.0.pools.ask(name, patience, &cancel);
        let mut job = Job {
            request: id,
            ask: request.ask,
            timeout,
            payload: request.payload,
            cancel: cancel.clone(),
            began,
            replays: Some(0),
        };
        let caller = Caller(Some(cancel));
        loop {
            let lease = match asked.answer().await {
                Ok(lease) => lease,
                Err(unserved) => {
                    let ending = self.unserved(&function, &job, unserved);
                    if job.replays > Some(0) {
                        let (pools, told) = (Arc::clone(&self.0.pools), ending.clone());
                        blocking(move || job.was_replayed(&pools, &told)).await?;
                    }
                    waiting.is_over = lock(&self.0.outcomes)
                        .get(id)
                        .is_ok_and(|known| known.is_over());
                    caller.has_it();
                    return ending;
                }
            };
            let shared = Arc::clone(&self.0);
            let (tell, told) = oneshot::channel();
            // Also where it panics, and whoever asked is gone.
            let at_work = Waiting {
                shared: Arc::downgrade(&shared),
                request: id,
                is_over: false,
            };
            let work = move || {
                let mut at_work = at_work;
                let worked = job.run(lease);
                at_work.is_over = true;
                if let Worked::Over(ending) = &worked {
                    lock(&shared.outcomes).end(id, ending.clone(), Instant::now());
                }
                // Whoever asked may be gone.
                if let Err(Worked::Lost(job)) = tell.send(worked) {
                    let nobody = Err(no_thread(&"nobody waits for it"));
                    job.was_replayed(&shared.pools, &nobody);
                    lock(&shared.outcomes).abandon(id);
                }
            };
            if let Err(error) = self.0.working.run(work) {
                return Err(no_thread(&error));
            }
            waiting.is_over = true;
            job = match told.await {
                Ok(Worked::Over(ending)) => {
                    caller.has_it();
                    return ending;
                }
                Ok(Worked::Lost(job)) => job,
                Err(_) => {
                    let detail = "the thread that worked on it has ended";
                    return Err(Problem::new(Kind::Lost, detail, "see the log of hearth"));
                }
            };
            waiting.is_over = false;
            asked.again();
        }
    }

    /// What is told to who got no instance.
    fn unserved(&self, function: &Function, job: &Job, unserved: Unserved) -> Ending {
        let Unserved { refusal, failure } = unserved;
        let Some(failure) = failure else {
            return Err(refused(function, refusal));
        };
        let ending = failure.unanswered.clone().map(|outcome| {
            function.state().tally.over(Came::Failed, None);
            Arc::new(Invoked {
                request: job.request,
                function: function.state().deployed.name.clone(),
                version: failure.version,
                sandbox: None,
                origin: failure.birth.origin,
                claimed: failure.birth.claimed,
                steps: failure.birth.steps(job.began).collect(),
                outcome,
            })
        });
        lock(&self.0.outcomes).end(job.request, ending.clone(), Instant::now());
        ending
    }

    /// Where a request is, or how it ended.
    pub async fn outcome(&self, request: RequestId) -> Result<Known, Problem> {
        // A sandbox may have kept it. Where they cannot be asked, what is known here is said.
        let _ = self.adopt().await;
        let mut outcomes = lock(&self.0.outcomes);
        outcomes.forget(Instant::now());
        outcomes.get(request)
    }

    /// What the pools are like now, for who watches the node.
    #[must_use]
    pub fn pools(&self) -> PoolsState {
        self.0.pools.state()
    }

    /// Memory that all sandboxes may have together, in bytes; four fifths of what the node has where
    /// nothing is said.
    pub fn set_memory(&self, bytes: Option<u64>) {
        self.0.pools.set_memory(bytes);
    }

    /// Records what the pools are told and what they want done, from now on.
    pub fn record(&self) -> Result<Recording, Problem> {
        self.0.pools.record()
    }

    /// What was decided about functions that failed, and what came of it: a JSON object a line, as the
    /// audit has it. Nothing where nobody decides.
    pub async fn healings(&self, wanted: Wanted) -> Result<String, Problem> {
        let Some(healer) = self.0.pools.healer().cloned() else {
            return Ok(String::new());
        };
        let lines = blocking(move || healer.lines(&wanted)).await?;
        lines.map_err(|error| {
            let detail = format!("the audit cannot be read: {error}");
            Problem::new(Kind::Store, detail, "`hearth heal log --verify` says more")
        })
    }

    /// A start was seen: the claim at that time began it, it took so long until the function was
    /// ready, if it ever was, and `document` is all of it as JSON.
    pub fn saw(&self, claimed: Boottime, took: Option<Duration>, document: String) {
        if let Some(took) = took {
            self.0.pools.saw(claimed, took);
        }
        self.0.starts.saw(claimed, document);
    }

    /// How functions started, for who sees it and who asks.
    #[must_use]
    pub fn starts(&self) -> &Starts {
        &self.0.starts
    }

    /// Whether somebody sees how functions start.
    #[must_use]
    pub fn sees_starts(&self) -> bool {
        self.0.sees_starts
    }

    /// Looks after idle sandboxes, and finds those of an agent before this one; for ever.
    pub async fn look_after(&self) {
        self.watch();
        tokio::join!(self.tick(), self.sweep());
    }

    /// Tells the pools the time when they want to hear it, whatever else takes long.
    async fn tick(&self) {
        loop {
            self.0.pools.tick();
            self.0.pools.due(SWEEP).await;
        }
    }

    async fn sweep(&self) {
        let mut has_warned = false;
        loop {
            match self.adopt().await {
                Ok(()) => has_warned = false,
                Err(problem) if !has_warned => {
                    tracing::warn!("no function can run: {problem}");
                    has_warned = true;
                }
                Err(_) => {}
            }
            let shared = Arc::clone(&self.0);
            // It panics where we do; then there is nothing to look after.
            let _ = spawn_blocking(move || shared.sweep()).await;
            sleep(SWEEP).await;
        }
    }
}

impl Shared {
    /// Versions that sandboxes run.
    fn in_use(&self) -> InUse {
        let version = |live: &Arc<Live>, _| {
            let deployed = &live.deployed;
            Some((deployed.name.clone(), deployed.version))
        };
        self.pools.look(version).into_iter().collect()
    }

    /// One version of a function.
    pub(super) fn version(&self, name: &FunctionName, version: u32) -> Option<Arc<Deployed>> {
        lock(&self.store).version(name, version).cloned()
    }

    /// Ends a sandbox that nobody can use.
    pub(super) fn end(&self, sandbox: SandboxId) {
        if let Err(error) = self.node.end(sandbox) {
            tracing::warn!("sandbox {sandbox} is not ended yet: {error}");
        }
    }

    /// Takes in what idle sandboxes say, and ends those that have ended by themselves.
    fn sweep(&self) {
        self.node.tell_again();
        self.pools.listen();
        if let Some(healer) = self.pools.healer() {
            healer.tick(Boottime::now());
        }
        self.pools.look_at_schedules();
        self.pools.look_at_memory();
        self.pools.weigh_idle();
        self.pools.give_up_measuring();
        lock(&self.outcomes).forget(Instant::now());
    }
}

/// A request whose end is not told yet: when this is dropped its id is free again.
struct Waiting {
    shared: Weak<Shared>,
    request: RequestId,
    is_over: bool,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(shared) = self.shared.upgrade()
            && !self.is_over
        {
            lock(&shared.outcomes).abandon(self.request);
        }
    }
}

/// Somebody waits for the outcome: when this is dropped before, nobody does any more.
struct Caller(Option<Cancel>);

impl Caller {
    fn has_it(mut self) {
        self.0 = None;
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        if let Some(cancel) = &self.0 {
            cancel.cancel();
        }
    }
}

fn is_removed(name: &FunctionName) -> Problem {
    let detail = "the function is being removed";
    Problem::new(Kind::Busy, detail, "try again when it is gone").about("name", name)
}

fn no_thread(error: &impl std::fmt::Display) -> Problem {
    let detail = format!("nothing to work on it with: {error}");
    Problem::new(Kind::Busy, detail, "try again later")
}

/// Does what waits beside everything else.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Problem> {
    let done = spawn_blocking(work).await;
    done.map_err(|error| unfinished(&error))
}

fn unfinished(error: &JoinError) -> Problem {
    let detail = format!("it could not be finished: {error}");
    Problem::new(Kind::Store, detail, "see the log of hearth")
}
