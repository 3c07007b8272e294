//! How an instance comes up: a sandbox, the function in it, and its warm-up.

use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use hearth_runtime::id::{RequestId, SandboxId};
use hearth_runtime::pool::Input;
use hearth_runtime::sandbox::ask::{Claimed, Collapsed, Ended};
use hearth_runtime::sandbox::backend::{
    Backend as _, Cancel, Outcome, Prepared, Sandbox, SandboxError, Started, Work,
};
use hearth_runtime::sandbox::message::{Ask, NotStarted};
use hearth_runtime::sandbox::spawner::SpawnerError;
use hearth_runtime::sandbox::start::{HugePages, Network, Program, Root, Start};

use super::ended::Cause;
use super::live::{About, Birth, Doing, Stage};
use super::{Death, During, Failure, Live, Pools};
use crate::functions::definition;
use crate::functions::failure::{Unanswered, failed, no_sandbox, not_started};
use crate::functions::invocation::Origin;
use crate::functions::job::{arn, ending};
use crate::functions::manager::lock;
use crate::functions::node::Node as _;
use crate::functions::problem::{Kind, Problem};
use crate::functions::store::Deployed;
use crate::time::Boottime;

/// Times that the spawner is asked for one sandbox.
const ATTEMPTS: u32 = 4;
/// Time between them.
const PAUSE: Duration = Duration::from_millis(25);

/// One that came up.
struct Up {
    sandbox: Box<dyn Sandbox>,
    /// When it was claimed.
    claimed: Boottime,
    /// From the claim until it was ready.
    took: Duration,
}

/// Why one did not come up.
struct Fallen {
    cause: Cause,
    unanswered: Unanswered,
    ended: Option<Ended>,
}

/// One is being started: where that panics it has failed.
struct Guard<'a>(&'a Arc<Pools>, &'a Arc<Live>);

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        let Self(pools, live) = self;
        // One that is up already goes on.
        if !thread::panicking() || !pools.is_coming_up(live) {
            return;
        }
        let detail = "the thread that started it has ended";
        let problem = Problem::new(Kind::Lost, detail, "see the log of hearth");
        let fallen = Fallen {
            cause: Cause::Lost,
            unanswered: Err(problem),
            ended: pools.take_away(live),
        };
        pools.has_fallen(live, Birth::new(), fallen, Instant::now());
    }
}

impl Pools {
    /// Starts one, or says that it did not start.
    pub(super) fn start_guarded(self: &Arc<Self>, live: &Arc<Live>) {
        let _guard = Guard(self, live);
        self.start(live);
    }

    fn is_coming_up(&self, live: &Live) -> bool {
        let inner = lock(&self.inner);
        let entry = inner.live.get(&live.instance);
        entry.is_some_and(|entry| matches!(entry.doing, Doing::Starting | Doing::Retired))
    }

    /// Starts one.
    fn start(self: &Arc<Self>, live: &Arc<Live>) {
        let began = Instant::now();
        self.is_starting(live);
        let mut birth = Birth::new();
        match self.bring_up(live, &mut birth) {
            Ok(Up {
                sandbox,
                claimed,
                took,
            }) => {
                let about = birth.clone();
                live.is_up(sandbox, birth);
                self.is_idle(live, |function, instance| Input::Started {
                    function,
                    instance,
                });
                live.function.state().tally.started(took);
                self.came_up(live, Some(&about));
                self.timed(live.deployed.name.clone(), claimed, took);
            }
            Err(fallen) => self.has_fallen(live, birth, *fallen, began),
        }
    }

    /// There is no thread to start one.
    pub(super) fn has_no_thread(self: &Arc<Self>, live: &Arc<Live>, error: &std::io::Error) {
        let detail = format!("nothing to start it with: {error}");
        let fallen = Fallen {
            cause: Cause::NoSandbox,
            unanswered: Err(Problem::new(Kind::Busy, detail, "try again later")),
            ended: None,
        };
        self.has_fallen(live, Birth::new(), fallen, Instant::now());
    }

    fn has_fallen(
        self: &Arc<Self>,
        live: &Arc<Live>,
        birth: Birth,
        fallen: Fallen,
        began: Instant,
    ) {
        let failure = Failure {
            unanswered: fallen.unanswered,
            version: live.deployed.version,
            birth,
        };
        let why = failure.why();
        tracing::warn!("function {} did not start: {why}", live.deployed.name);
        live.function.state().last_failure = Some(why);
        let death = Death {
            during: During::Start(Arc::new(failure)),
            cause: fallen.cause,
            ended: fallen.ended,
            elapsed: began.elapsed(),
            interrupted: None,
        };
        // Who waited for it waits in the fleet.
        self.ended(live, death);
    }

    /// A sandbox in which the function waits for work, and how long it took from the claim.
    fn bring_up(&self, live: &Arc<Live>, birth: &mut Birth) -> Result<Up, Box<Fallen>> {
        let began = Instant::now();
        let at = Boottime::now();
        let memory = self.memory(live);
        live.is_limited(memory);
        let prepared = self
            .prepare(&live.deployed, memory)
            .map_err(|error| Fallen {
                cause: Cause::NoSandbox,
                unanswered: Err(no_sandbox(&error)),
                ended: None,
            });
        let prepared = prepared.map_err(Box::new)?;
        birth.stage("claim", began);
        let Prepared {
            mut sandbox,
            claimed,
        } = prepared;
        birth.claimed = Some(at);
        birth.memory_bytes = read_back(&claimed);
        birth.origin = if claimed.was_parked {
            Origin::Parked
        } else {
            Origin::Fresh
        };
        if !self.is_wanted(live, About::of(&claimed, at)) {
            return Err(Box::new(Fallen {
                cause: Cause::Cancelled,
                unanswered: Ok(failed("Sandbox.Cancelled", "the function is being removed")),
                ended: self.take_away(live),
            }));
        }
        if let Some(watcher) = &self.watcher {
            watcher.claimed(&live.deployed.name, &claimed, at);
        }
        let began = Instant::now();
        let start = order(&live.deployed, live.layers.clone(), memory);
        let patience = live.deployed.definition.init_timeout.0;
        let outcome = sandbox.start(&start, patience, &mut |told| {
            live.function.hear(claimed.sandbox, told);
        });
        live.function.state().starts += 1;
        let started = match outcome {
            Ok(started) => started,
            Err(error) => {
                birth.stage("start", began);
                return Err(self.fell(live, error));
            }
        };
        let ready = Boottime(started.ready_boottime_ns);
        if let Some(watcher) = &self.watcher {
            watcher.ready(at, ready);
        }
        inside(birth, &started, began);
        self.warm_up(live, &mut *sandbox, birth)?;
        if live.deployed.definition.huge_pages == definition::HugePages::Collapse {
            self.collapse(claimed.sandbox);
        }
        let took = ready.since(at).as_duration();
        Ok(Up {
            sandbox,
            claimed: at,
            took,
        })
    }

    fn fell(&self, live: &Live, error: SandboxError) -> Box<Fallen> {
        let ended = self.take_away(live);
        let cause = match &error {
            SandboxError::Gone => Cause::Killed,
            SandboxError::NotStarted {
                why: NotStarted::Exited { .. },
                ..
            } => Cause::Exited,
            SandboxError::NotStarted {
                why: NotStarted::Deadline { .. },
                ..
            } => Cause::TimedOut,
            SandboxError::NotStarted {
                why: NotStarted::Program { .. } | NotStarted::Itself { .. },
                ..
            } => Cause::Refused,
            SandboxError::NotStarted {
                why: NotStarted::Sandbox { .. },
                ..
            } => Cause::NoSandbox,
            _ => Cause::Lost,
        };
        Box::new(Fallen {
            cause: cause.or_memory(ended.as_ref()),
            unanswered: not_started(error, live.limit(), ended.as_ref()),
            ended,
        })
    }

    /// Its sandbox is known from now on; false where it was retired meanwhile.
    fn is_wanted(&self, live: &Arc<Live>, about: About) -> bool {
        let inner = lock(&self.inner);
        live.is_at(about);
        let entry = inner.live.get(&live.instance);
        entry.is_some_and(|entry| !matches!(entry.doing, Doing::Retired))
    }

    /// A sandbox in which nothing was started. Where the spawner says that another attempt may do
    /// better, a few are made: nothing of the first is left.
    fn prepare(&self, deployed: &Deployed, memory: u64) -> Result<Prepared, SandboxError> {
        let resources = deployed.definition.resources(memory);
        let mut attempts = 1;
        loop {
            match self.node.prepare(&deployed.name, resources) {
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

    /// Gives it the request that it is to have had before any other.
    fn warm_up(
        &self,
        live: &Live,
        sandbox: &mut dyn Sandbox,
        birth: &mut Birth,
    ) -> Result<(), Box<Fallen>> {
        let Some(payload) = &live.deployed.definition.warm_up else {
            return Ok(());
        };
        let (Ok(request), Ok(cancel)) = (RequestId::random(), Cancel::new()) else {
            return Ok(());
        };
        let began = Instant::now();
        let work = Work {
            request,
            ask: Ask {
                arn: arn(&live.deployed),
                ..Ask::default()
            },
            left: live.deployed.definition.timeout.0,
            payload: payload.as_bytes(),
        };
        let (name, id) = (&live.deployed.name, sandbox.id());
        let outcome = sandbox.invoke(work, &cancel, &mut |told| live.function.hear(id, told));
        birth.stage("warm_up", began);
        match outcome {
            Ok(Outcome::Answered(_)) => {
                tracing::debug!("function {name} is warm after {:?}", began.elapsed());
                Ok(())
            }
            Ok(Outcome::Failed { kind, body }) if ending(&kind).is_none() => {
                let said = some(&body);
                tracing::warn!("function {name} failed in its warm-up: {kind}: {said}");
                Ok(())
            }
            Ok(Outcome::Failed { kind, body }) => {
                let ended = self.take_away(live);
                Err(Box::new(Fallen {
                    cause: Cause::Exited.or_memory(ended.as_ref()),
                    unanswered: Ok(if body.is_empty() {
                        failed(&kind, "the function ended in its warm-up")
                    } else {
                        Outcome::Failed { kind, body }
                    }),
                    ended,
                }))
            }
            Err(error) => Err(self.fell(live, error)),
        }
    }

    /// Has its memory gathered into huge pages. Nobody waits for that: a function that runs on small
    /// ones is slower, not wrong.
    fn collapse(&self, sandbox: SandboxId) {
        let node = Arc::clone(&self.node);
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
        if let Err(error) = self.ending.run(gather) {
            tracing::warn!("sandbox {sandbox}: no thread to ask for huge pages: {error}");
        }
    }
}

/// The memory that it may have, as it was read back from its cgroup.
fn read_back(claimed: &Claimed) -> Option<u64> {
    let mut limits = claimed.limits.iter();
    let (_, value) = limits.find(|(name, _)| name == "memory")?;
    value.as_ref().ok()?.parse().ok()
}

/// The beginning of what a function said.
pub(super) fn some(said: &[u8]) -> String {
    String::from_utf8_lossy(said).chars().take(300).collect()
}

/// The steps of a start: what was made inside of the sandbox, and what the function itself took until
/// it asked for work.
fn inside(birth: &mut Birth, started: &Started, began: Instant) {
    let whole = began.elapsed();
    let mut before = Duration::ZERO;
    for (name, done_us) in &started.steps {
        let done = Duration::from_micros(*done_us).clamp(before, whole.max(before));
        birth.stages.push(Stage {
            name: name.clone(),
            begin: began + before,
            length: done.saturating_sub(before),
        });
        before = done;
    }
    birth.stages.push(Stage {
        name: "init".to_owned(),
        begin: began + before,
        length: whole.saturating_sub(before),
    });
}

/// A version as `hearth-init` takes it.
fn order(deployed: &Deployed, layers: Vec<PathBuf>, memory: u64) -> Start {
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
        memory_bytes: Some(memory),
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
