//! Functions and their sandboxes on this node: deployed, invoked, looked at, removed.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use hearth_runtime::id::{FunctionName, RequestId, SandboxId};
use hearth_runtime::sandbox::backend::{Backend as _, Cancel};
use hearth_runtime::sandbox::message::Ask;
use tokio::sync::{Semaphore, oneshot};
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::definition::Definition;
use super::function::{Busy, Function};
use super::idle;
use super::invocation::{Ending, Known, Outcomes, Step};
use super::job::Job;
use super::node::{Ends, Node};
use super::problem::{Kind, Problem};
use super::starts::{Starts, Watcher};
use super::store::{Deployed, InUse, Store};

/// Requests that are at work at once, each on a thread.
const MAX_AT_WORK: usize = 256;
/// Requests of one function that wait for a sandbox.
const MAX_WAITING: usize = 1000;
/// How often idle sandboxes are looked at.
const SWEEP: Duration = Duration::from_millis(500);
/// How long the end of a function's sandboxes may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// Of a thread that waits for a sandbox: it needs little.
const STACK: usize = 256 << 10;

/// Functions and their sandboxes.
#[derive(Clone)]
pub struct Manager(pub(super) Arc<Shared>);

pub(super) struct Shared {
    pub(super) node: Arc<Ends>,
    pub(super) watcher: Option<Arc<dyn Watcher>>,
    store: Mutex<Store>,
    functions: Mutex<BTreeMap<FunctionName, Arc<Function>>>,
    pub(super) outcomes: Mutex<Outcomes>,
    /// How functions started, where that is seen.
    starts: Starts,
    at_work: Arc<Semaphore>,
    /// Sandboxes of an agent before this one were looked for: nothing is claimed before.
    pub(super) adopted: tokio::sync::Mutex<bool>,
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
        let functions = store.current().map(|deployed| {
            let layers = store.paths(deployed);
            let function = Function::new(Arc::clone(deployed), layers);
            (deployed.name.clone(), Arc::new(function))
        });
        Self(Arc::new(Shared {
            functions: Mutex::new(functions.collect()),
            node: Arc::new(Ends::new(node)),
            watcher,
            store: Mutex::new(store),
            outcomes: Mutex::default(),
            starts: Starts::default(),
            at_work: Arc::new(Semaphore::new(MAX_AT_WORK)),
            adopted: tokio::sync::Mutex::new(false),
        }))
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
            let deployed = store.deploy(&name, &definition, &in_use)?;
            let layers = store.paths(&deployed);
            let mut functions = lock(&shared.functions);
            if let Some(function) = functions.get(&name) {
                let old = function.replace(Arc::clone(&deployed), layers);
                drop((functions, store));
                shared.end_all(&old);
            } else {
                let function = Function::new(Arc::clone(&deployed), layers);
                functions.insert(name, Arc::new(function));
            }
            Ok(deployed)
        })
        .await?
    }

    /// Removes a function with all that is of it. What it is at work on is cancelled.
    pub async fn remove(&self, name: &FunctionName) -> Result<(), Problem> {
        let function = self.function(name)?;
        let idle = {
            let mut state = function.state();
            state.is_removed = true;
            for busy in state.busy.values() {
                busy.cancel.cancel();
            }
            state.take_idle(|_| true)
        };
        let mut changed = function.changed.subscribe();
        let (shared, ending) = (Arc::clone(&self.0), Arc::clone(&function));
        let name = name.clone();
        blocking(move || {
            shared.end_all(&idle);
            // One that is starting does not hear of a cancelled request.
            let busy = ending.state().busy_sandboxes();
            shared.end_all(&busy);
        })
        .await?;
        let over = changed.wait_for(|_| function.state().busy.is_empty());
        if timeout(PATIENCE, over).await.is_err() {
            function.state().is_removed = false;
            let detail = "its sandboxes have not ended in time";
            let remedy = "try again, and see the log of hearth-spawner";
            return Err(Problem::new(Kind::NoSandbox, detail, remedy).about("name", &name));
        }
        let shared = Arc::clone(&self.0);
        blocking(move || {
            let removed = lock(&shared.store).remove(&name);
            match &removed {
                Ok(()) => drop(lock(&shared.functions).remove(&name)),
                Err(_) => function.state().is_removed = false,
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
        let (permits, allowed) = {
            let state = function.state();
            (Arc::clone(&state.permits), state.timeout())
        };
        let patience = request.timeout.unwrap_or(allowed).min(allowed);
        let permit = self.permit(permits, patience).await?;
        let wait = Step {
            name: "wait".to_owned(),
            begin: Duration::ZERO,
            length: began.elapsed(),
        };
        let cancel = Cancel::new().map_err(|error| no_thread(&error))?;
        let (job, warm) = {
            let mut state = function.state();
            if state.is_removed {
                drop(state);
                return Err(self.function(name).err().unwrap_or_else(|| {
                    Problem::new(Kind::UnknownFunction, "it is being removed", "")
                }));
            }
            let version = state.deployed.version;
            let warm = state.idle.pop_back();
            let busy = Busy {
                version,
                cancel: cancel.clone(),
                about: warm.as_ref().map(|idle| idle.about.clone()),
            };
            state.busy.insert(id, busy);
            let deployed = Arc::clone(&state.deployed);
            let job = Job {
                node: Arc::clone(&self.0.node),
                function: Arc::clone(&function),
                layers: state.layers.clone(),
                request: id,
                ask: Ask {
                    arn: arn(&deployed),
                    ..request.ask
                },
                timeout: patience,
                payload: request.payload,
                cancel: cancel.clone(),
                watcher: self.0.watcher.clone(),
                began,
                steps: vec![wait],
                claimed: None,
                deployed,
            };
            (job, warm)
        };
        let (shared, of) = (Arc::clone(&self.0), Arc::clone(&function));
        let (tell, told) = oneshot::channel();
        let work = move || {
            let (ending, idle) = job.run(warm);
            let unused = of.give_back(id, idle);
            lock(&shared.outcomes).end(id, ending.clone(), Instant::now());
            drop(permit);
            // Whoever asked may be gone.
            let _ = tell.send(ending);
            shared.end_all(unused.as_slice());
            of.tell_change();
        };
        if let Err(error) = on_thread(work) {
            function.state().busy.remove(&id);
            return Err(no_thread(&error));
        }
        waiting.is_over = true;
        let caller = Caller(Some(cancel));
        let ending = told.await.unwrap_or_else(|_| {
            let detail = "the thread that worked on it has ended";
            Err(Problem::new(Kind::Lost, detail, "see the log of hearth"))
        });
        caller.has_it();
        ending
    }

    /// The right to be at work: of this function, and on this node.
    async fn permit(
        &self,
        permits: Arc<Semaphore>,
        patience: Duration,
    ) -> Result<impl Send + 'static, Problem> {
        let busy = |detail: &str| {
            let remedy = "try again later, or raise its `max_instances`";
            Problem::new(Kind::Busy, detail, remedy)
        };
        if permits.available_permits() == 0 && Arc::strong_count(&permits) > MAX_WAITING {
            return Err(busy("too many requests wait for a sandbox"));
        }
        let both = async {
            let of_function = permits.acquire_owned().await;
            (
                of_function,
                Arc::clone(&self.0.at_work).acquire_owned().await,
            )
        };
        match timeout(patience, both).await {
            Ok((Ok(one), Ok(other))) => Ok((one, other)),
            _ => Err(busy("no sandbox became free in time")),
        }
    }

    /// Where a request is, or how it ended.
    pub async fn outcome(&self, request: RequestId) -> Result<Known, Problem> {
        // A sandbox may have kept it. Where they cannot be asked, what is known here is said.
        let _ = self.adopt().await;
        let mut outcomes = lock(&self.0.outcomes);
        outcomes.forget(Instant::now());
        outcomes.get(request)
    }

    /// How functions started, for who sees it and who asks.
    #[must_use]
    pub fn starts(&self) -> &Starts {
        &self.0.starts
    }

    /// Whether somebody sees how functions start.
    #[must_use]
    pub fn sees_starts(&self) -> bool {
        self.0.watcher.is_some()
    }

    /// Looks after idle sandboxes, and finds those of an agent before this one; for ever.
    pub async fn look_after(&self) {
        let mut sweep = interval(SWEEP);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut has_warned = false;
        loop {
            sweep.tick().await;
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
        }
    }
}

impl Shared {
    /// Versions that sandboxes run.
    fn in_use(&self) -> InUse {
        let functions = lock(&self.functions);
        let mut in_use = InUse::new();
        for (name, function) in &*functions {
            let state = function.state();
            let idle = state.idle.iter().map(|idle| idle.about.version);
            let busy = state.busy.values().map(|busy| busy.version);
            in_use.extend(idle.chain(busy).map(|version| (name.clone(), version)));
        }
        in_use
    }

    /// One version of a function.
    pub(super) fn version(&self, name: &FunctionName, version: u32) -> Option<Arc<Deployed>> {
        lock(&self.store).version(name, version).cloned()
    }

    /// Ends sandboxes, one after the other.
    pub(super) fn end_all(&self, sandboxes: &[SandboxId]) {
        for sandbox in sandboxes {
            if let Err(error) = self.node.end(*sandbox) {
                tracing::warn!("sandbox {sandbox} is not ended yet: {error}");
            }
        }
    }

    /// Takes in what idle sandboxes say, and ends those that have been idle for long, or have
    /// ended by themselves.
    fn sweep(&self) {
        self.node.tell_again();
        let functions: Vec<Arc<Function>> = lock(&self.functions).values().cloned().collect();
        for function in functions {
            let late = {
                let mut state = function.state();
                state.take_idle(|idle| !idle::is_kept(idle.since.elapsed()))
            };
            self.end_all(&late);
            for mut idle in function.take_speaking() {
                let id = idle.about.id;
                match idle.sandbox.listen(&mut |told| function.hear(id, told)) {
                    Ok(()) => self.end_all(function.put_back(idle).as_slice()),
                    // It is over; its slot is to be given back.
                    Err(_) => self.end_all(&[id]),
                }
            }
        }
        lock(&self.outcomes).forget(Instant::now());
    }
}

/// A request that did not reach its function yet: when this is dropped its id is free again.
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

/// What functions know themselves by.
fn arn(deployed: &Deployed) -> String {
    format!(
        "arn:hearth:lambda:local:000000000000:function:{}:{}",
        deployed.name, deployed.version
    )
}

pub(super) fn on_thread(work: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    let thread = thread::Builder::new().name("hearth-request".to_owned());
    thread.stack_size(STACK).spawn(work).map(drop)
}

fn no_thread(error: &impl std::fmt::Display) -> Problem {
    let detail = format!("nothing to work on it with: {error}");
    Problem::new(Kind::Busy, detail, "try again later")
}

/// Does what waits beside everything else.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Problem> {
    spawn_blocking(work).await.map_err(|error| {
        let detail = format!("it could not be finished: {error}");
        Problem::new(Kind::Store, detail, "see the log of hearth")
    })
}
