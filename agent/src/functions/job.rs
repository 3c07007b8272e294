//! One request, from a sandbox for it to its outcome. It waits, so it runs on a thread of its own.

use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use hearth_runtime::id::{RequestId, SandboxId};
use hearth_runtime::sandbox::ask::{Collapsed, Ended};
use hearth_runtime::sandbox::backend::{
    Backend as _, Cancel, Outcome, Prepared, SandboxError, Started, Work,
};
use hearth_runtime::sandbox::message::{Ask, NotStarted, fault};
use hearth_runtime::sandbox::spawner::SpawnerError;
use hearth_runtime::sandbox::start::{HugePages, Network, Program, Root, Start};

use super::definition;
use super::function::{About, Function, Idle, has_something};
use super::invocation::{Ending, Invoked, Origin, Step};
use super::node::{Ends, Node as _};
use super::problem::{Kind, Problem};
use super::starts::Watcher;
use super::store::Deployed;
use crate::time::Boottime;

/// The kind of the failure of a function that ran out of memory, as AWS Lambda calls it.
const OUT_OF_MEMORY: &str = "Runtime.OutOfMemory";
/// The kind of the failure of a function whose program cannot be run.
const NO_PROGRAM: &str = "Runtime.InvalidEntrypoint";

/// Times that the spawner is asked for one sandbox.
const ATTEMPTS: u32 = 4;
/// Time between them.
const PAUSE: Duration = Duration::from_millis(25);

/// A request for a function.
pub(super) struct Job {
    pub(super) node: Arc<Ends>,
    pub(super) function: Arc<Function>,
    pub(super) deployed: Arc<Deployed>,
    pub(super) layers: Vec<PathBuf>,
    pub(super) request: RequestId,
    pub(super) ask: Ask,
    pub(super) timeout: Duration,
    pub(super) payload: Vec<u8>,
    pub(super) cancel: Cancel,
    pub(super) watcher: Option<Arc<dyn Watcher>>,
    /// When the request came in.
    pub(super) began: Instant,
    pub(super) steps: Vec<Step>,
    /// When a sandbox was claimed for it, if one was.
    pub(super) claimed: Option<Boottime>,
}

/// What comes of a request without an answer: the function's failure, or a problem that is not its.
type Unanswered = Result<Outcome, Problem>;

impl Job {
    /// Does it, with a sandbox that is idle or a new one; gives back the one that can be used again.
    pub(super) fn run(mut self, warm: Option<Idle>) -> (Ending, Option<Idle>) {
        let mut origin = Origin::Warm;
        let ready = match warm.and_then(|idle| self.still_there(idle)) {
            Some(idle) => Ok(idle),
            None => self.start(&mut origin),
        };
        let mut idle = match ready {
            Ok(idle) => idle,
            Err(Ok(outcome)) => return (Ok(self.ending(origin, None, outcome)), None),
            Err(Err(problem)) => return (Err(problem), None),
        };
        let outcome = self.invoke(&mut idle);
        self.end(outcome, origin, idle)
    }

    /// What became of it, and the sandbox if that can be used again.
    pub(super) fn end(
        self,
        outcome: Result<Outcome, SandboxError>,
        origin: Origin,
        mut idle: Idle,
    ) -> (Ending, Option<Idle>) {
        let id = idle.about.id;
        let (outcome, lives) = match outcome {
            Ok(outcome) => self.judge(outcome, id),
            Err(error) => match self.lost(&error, id) {
                Ok(outcome) => (outcome, false),
                Err(problem) => return (Err(problem), None),
            },
        };
        idle.since = Instant::now();
        (
            Ok(self.ending(origin, Some(id), outcome)),
            lives.then_some(idle),
        )
    }

    fn ending(self, origin: Origin, sandbox: Option<SandboxId>, outcome: Outcome) -> Arc<Invoked> {
        let mut state = self.function.state();
        state.counts.invocations += 1;
        state.counts.answered += u64::from(matches!(outcome, Outcome::Answered(_)));
        drop(state);
        Arc::new(Invoked {
            request: self.request,
            function: self.deployed.name.clone(),
            version: self.deployed.version,
            sandbox,
            origin,
            claimed: self.claimed,
            steps: self.steps,
            outcome,
        })
    }

    fn step(&mut self, name: &str, began: Instant) {
        self.steps.push(Step {
            name: name.to_owned(),
            begin: began.saturating_duration_since(self.began),
            length: began.elapsed(),
        });
    }

    /// An idle one, unless it has ended meanwhile.
    fn still_there(&self, mut idle: Idle) -> Option<Idle> {
        let id = idle.about.id;
        if has_something(&*idle.sandbox) {
            let heard = idle
                .sandbox
                .listen(&mut |told| self.function.hear(id, told));
            if heard.is_err() {
                let _ = self.node.end(id);
                return None;
            }
        }
        Some(idle)
    }

    /// A sandbox in which the function waits for work.
    fn start(&mut self, origin: &mut Origin) -> Result<Idle, Unanswered> {
        let began = Instant::now();
        let at = Boottime::now();
        let prepared = self.prepare().map_err(|error| Err(no_sandbox(&error)))?;
        self.step("claim", began);
        let claimed = prepared.claimed;
        self.claimed = Some(at);
        *origin = if claimed.was_parked {
            Origin::Parked
        } else {
            Origin::Fresh
        };
        let mut idle = Idle {
            about: About {
                id: claimed.sandbox,
                version: self.deployed.version,
                slot: claimed.slot.to_string(),
                pid: claimed.init.pid,
                began: SystemTime::now(),
            },
            sandbox: prepared.sandbox,
            since: Instant::now(),
        };
        if !self.note(&idle.about) {
            let _ = self.node.end(claimed.sandbox);
            let outcome = failed(fault::CANCELLED, "the function is being removed");
            return Err(Ok(outcome));
        }
        if let Some(watcher) = &self.watcher {
            watcher.claimed(&self.deployed.name, &claimed, at);
        }
        let began = Instant::now();
        let start = start(&self.deployed, self.layers.clone());
        let patience = self.deployed.definition.init_timeout.0;
        let function = Arc::clone(&self.function);
        let outcome = idle.sandbox.start(&start, patience, &mut |told| {
            function.hear(claimed.sandbox, told);
        });
        self.function.state().counts.starts += 1;
        match outcome {
            Ok(started) => {
                if let Some(watcher) = &self.watcher {
                    watcher.ready(at, Boottime(started.ready_boottime_ns));
                }
                self.inside(&started, began);
                if self.deployed.definition.huge_pages == definition::HugePages::Collapse {
                    collapse(Arc::clone(&self.node), claimed.sandbox);
                }
                Ok(idle)
            }
            Err(error) => {
                self.step("start", began);
                Err(self.not_started(error, claimed.sandbox))
            }
        }
    }

    /// A sandbox in which nothing was started. Where the spawner says that another attempt may do
    /// better, a few are made: nothing of the first is left.
    fn prepare(&self) -> Result<Prepared, SandboxError> {
        let resources = self.deployed.definition.resources();
        let mut attempts = 1;
        loop {
            match self.node.prepare(&self.deployed.name, resources) {
                Err(SandboxError::Spawner(SpawnerError::Refused { again: true, .. }))
                    if attempts < ATTEMPTS =>
                {
                    attempts += 1;
                    thread::sleep(PAUSE);
                }
                prepared => return prepared,
            }
        }
    }

    /// The steps of a start: what was made inside of the sandbox, and what the function itself took
    /// until it asked for work.
    fn inside(&mut self, started: &Started, began: Instant) {
        let whole = began.elapsed();
        let first = began.saturating_duration_since(self.began);
        let mut before = Duration::ZERO;
        for (name, done_us) in &started.steps {
            let done = Duration::from_micros(*done_us).clamp(before, whole.max(before));
            self.steps.push(Step {
                name: name.clone(),
                begin: first + before,
                length: done.saturating_sub(before),
            });
            before = done;
        }
        self.steps.push(Step {
            name: "init".to_owned(),
            begin: first + before,
            length: whole.saturating_sub(before),
        });
    }

    /// Its sandbox is known from now on; false where the function is being removed.
    fn note(&self, about: &About) -> bool {
        let mut state = self.function.state();
        if let Some(busy) = state.busy.get_mut(&self.request) {
            busy.about = Some(about.clone());
        }
        !state.is_removed
    }

    fn invoke(&mut self, idle: &mut Idle) -> Result<Outcome, SandboxError> {
        let began = Instant::now();
        let payload = std::mem::take(&mut self.payload);
        let work = Work {
            request: self.request,
            ask: self.ask.clone(),
            left: self.timeout,
            payload: &payload,
        };
        let function = Arc::clone(&self.function);
        let outcome = idle.sandbox.invoke(work, &self.cancel, &mut |told| {
            function.hear(idle.about.id, told);
        });
        self.step("invoke", began);
        outcome
    }

    /// Whether the sandbox lives on after what it said; what was left unsaid is filled in.
    fn judge(&self, outcome: Outcome, sandbox: SandboxId) -> (Outcome, bool) {
        let Outcome::Failed { kind, body } = outcome else {
            return (outcome, true);
        };
        let over = [fault::TIMED_OUT, fault::CANCELLED, fault::EXITED];
        if !over.contains(&&*kind) {
            let body = if body.is_empty() {
                error_body(&kind, "the function said no more than that")
            } else {
                body
            };
            return (Outcome::Failed { kind, body }, true);
        }
        let ended = self.node.end(sandbox).ok();
        let outcome = if kind == fault::TIMED_OUT {
            let message = format!(
                "Task timed out after {:.2} seconds",
                self.timeout.as_secs_f64()
            );
            failed(&kind, &message)
        } else if kind == fault::CANCELLED {
            let message = if self.function.state().is_removed {
                "the function was removed"
            } else {
                "nobody waited for the answer any more"
            };
            failed(&kind, message)
        } else if body.is_empty() || ran_out(ended.as_ref()) {
            self.exited(ended.as_ref())
        } else {
            Outcome::Failed { kind, body }
        };
        (outcome, false)
    }

    /// It ended while it was at work.
    fn exited(&self, ended: Option<&Ended>) -> Outcome {
        if ran_out(ended) {
            let memory = self.deployed.definition.memory;
            let message = format!(
                "the function was killed for want of memory: it may have {memory}; raise its \
                 `memory`, and see `hearth oom list`"
            );
            return failed(OUT_OF_MEMORY, &message);
        }
        let how = ended.map_or_else(String::new, |ended| format!(" ({})", ended.how));
        let message = format!("the function ended before it answered{how}");
        failed(fault::EXITED, &message)
    }

    /// The sandbox is of no use any more.
    fn lost(&self, error: &SandboxError, sandbox: SandboxId) -> Unanswered {
        let ended = self.node.end(sandbox).ok();
        match error {
            SandboxError::Gone => Ok(self.exited(ended.as_ref())),
            error => Err(Problem::new(
                Kind::Lost,
                error.to_string(),
                "the function may have done its work or not: see its logs",
            )),
        }
    }

    fn not_started(&self, error: SandboxError, sandbox: SandboxId) -> Unanswered {
        let ended = self.node.end(sandbox).ok();
        let SandboxError::NotStarted { why, said } = error else {
            return match error {
                SandboxError::Gone => Ok(self.exited(ended.as_ref())),
                error => Err(no_sandbox(&error)),
            };
        };
        let message = why.to_string();
        let was_killed = ran_out(ended.as_ref());
        Ok(match why {
            NotStarted::Sandbox { .. } => {
                let remedy = "see the log of hearth-spawner";
                return Err(Problem::new(Kind::NoSandbox, message, remedy));
            }
            NotStarted::Program { .. } => failed(
                NO_PROGRAM,
                &format!("{message}; `command` names a program of its layers, which may run"),
            ),
            NotStarted::Itself { kind } if !said.is_empty() => Outcome::Failed { kind, body: said },
            NotStarted::Itself { kind } => failed(&kind, &message),
            NotStarted::Exited { .. } if was_killed => self.exited(ended.as_ref()),
            NotStarted::Exited { .. } => failed(fault::EXITED, &message),
            NotStarted::Deadline { .. } => failed(
                fault::TIMED_OUT,
                &format!("{message}; raise its `init_timeout` if it needs more"),
            ),
        })
    }
}

/// Somebody in it was killed for want of memory.
fn ran_out(ended: Option<&Ended>) -> bool {
    ended.and_then(|ended| ended.oom_kills).unwrap_or(0) > 0
}

/// An error as functions on AWS Lambda have them.
fn error_body(kind: &str, message: &str) -> Vec<u8> {
    serde_json::json!({ "errorType": kind, "errorMessage": message })
        .to_string()
        .into_bytes()
}

fn failed(kind: &str, message: &str) -> Outcome {
    Outcome::Failed {
        kind: kind.to_owned(),
        body: error_body(kind, message),
    }
}

/// Has its memory gathered into huge pages. Nobody waits for that: a function that runs on small
/// ones is slower, not wrong.
fn collapse(node: Arc<Ends>, sandbox: SandboxId) {
    let gather = move || match node.collapse(sandbox) {
        Ok(Collapsed { why: None, .. }) => {}
        Ok(Collapsed {
            failed_bytes,
            why: Some(why),
            ..
        }) => tracing::warn!(
            "sandbox {sandbox}: {failed_bytes} bytes could not be put into huge pages: {why}"
        ),
        // It may have ended since.
        Err(error) => tracing::debug!("sandbox {sandbox}: no huge pages: {error}"),
    };
    let thread = thread::Builder::new().name("hearth-collapse".to_owned());
    if let Err(error) = thread.spawn(gather) {
        tracing::warn!("sandbox {sandbox}: no thread to ask for huge pages: {error}");
    }
}

/// Why there is no sandbox.
pub(super) fn no_sandbox(error: &SandboxError) -> Problem {
    let detail = error.to_string();
    match error {
        SandboxError::Spawner(SpawnerError::Connect { .. } | SpawnerError::Closed { .. }) => {
            Problem::new(
                Kind::NoSpawner,
                detail,
                "functions need hearth-spawner: start it (systemctl start hearth-spawner), or \
                 name its directory in functions.spawner_dir",
            )
        }
        SandboxError::Owned { .. } => Problem::new(
            Kind::NoSpawner,
            detail,
            "end the other hearth, or give this one a hearth-spawner of its own and name its \
             directory in functions.spawner_dir",
        ),
        SandboxError::Spawner(SpawnerError::Refused { again: true, .. }) => {
            Problem::new(Kind::NoSandbox, detail, "try again")
        }
        _ => Problem::new(Kind::NoSandbox, detail, "see the log of hearth-spawner"),
    }
}

/// A version as `hearth-init` takes it.
fn start(deployed: &Deployed, layers: Vec<PathBuf>) -> Start {
    let definition = &deployed.definition;
    let environment = deployed.environment.iter();
    Start {
        function: deployed.name.clone(),
        version: deployed.version,
        root: Root {
            layers,
            writable_bytes: definition.writable.0,
        },
        program: Program {
            command: deployed.command.clone(),
            environment: environment
                .map(|(name, value)| (name.clone(), value.clone()))
                .collect(),
            directory: deployed.directory.clone(),
        },
        syscalls: definition.syscalls.clone(),
        open_files: definition.open_files,
        memory_bytes: Some(definition.memory.0),
        huge_pages: match definition.huge_pages {
            // Gathered from outside, when it is ready.
            definition::HugePages::Node | definition::HugePages::Collapse => HugePages::Node,
            definition::HugePages::Never => HugePages::Never,
        },
        network: match definition.network {
            definition::Network::Loopback => Network::Loopback,
            definition::Network::Veth => Network::Veth,
        },
    }
}
