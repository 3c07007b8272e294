//! How soon a function answers after a fault, beside a cold start of the same function.
//!
//! Both sides ask for the same and wait for the right answer:
//!
//! - *ours*: a request is at work when its sandbox is at fault. It is given to another sandbox, and
//!   its answer arrives. The time begins at the fault: where the function's process (or the first one
//!   of its sandbox) is dead, as its pidfd tells; with `hung` where the agent gives it up, and it is
//!   the next request that is answered, as the time of the first one is over.
//! - *cold start*: the same request for a function that has no sandbox. The time begins when it is
//!   sent.
//!
//! Each measurement is of a version of its own, so that nothing is known of earlier faults. Where a
//! spare is kept (`min_instances = 2`), it takes the place of the one that is lost.

use std::fs;
use std::os::fd::{AsFd as _, OwnedFd};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use hearth_tests::api::{Api, Reply};
use hearth_tests::daemon::Daemon;
use hearth_tests::node::{self, layer};
use hearth_tests::serving::Serving;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde_json::{Value, json};

use super::pairs::{self, Pairs, Precision};
use super::{Better, Printer};

/// Begin of the names of what is made here.
const NAME: &str = "bench-heal";
/// The function.
const FUNCTION: &str = "healed";
/// Sandboxes that are parked.
const PARKED: u16 = 8;

/// A hundred of each side and kind, for two minutes in all: the p99 is the last but one.
const PRECISION: Precision = Precision {
    half_width: 0.0,
    rounds: (50, 50),
};

/// How long a request waits for its fault, and how long before the end of that the fault comes: less
/// than any other sandbox could take to begin.
const WAIT: Duration = Duration::from_millis(60);
const BEFORE: Duration = Duration::from_millis(1);
/// The time of a request that hangs.
const HANGS: Duration = Duration::from_millis(100);
/// How often a fault may come too late in a row.
const TRIES: u32 = 20;
/// How long a request may take.
const TIME: Duration = Duration::from_secs(20);

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Fault {
    /// It needs more memory than it may have.
    Oom,
    /// Its process dies.
    Crash,
    /// The first process of its sandbox dies.
    Init,
    /// It does not answer.
    Hang,
}

impl Fault {
    const ALL: [Self; 4] = [Self::Oom, Self::Crash, Self::Init, Self::Hang];

    const fn name(self) -> &'static str {
        match self {
            Self::Oom => "OOM kill",
            Self::Crash => "crash",
            Self::Init => "kill of init",
            Self::Hang => "hang",
        }
    }
}

/// Measures after each kind of fault, or only after one.
pub(crate) fn measure(only: Option<Fault>, printer: &mut Printer) -> Result<()> {
    ensure!(
        rustix::process::geteuid().is_root(),
        "making sandboxes takes root"
    );
    node::sweep(NAME).context("remove what an earlier run left")?;
    for fault in Fault::ALL {
        if only.is_some_and(|only| only != fault) {
            continue;
        }
        // A node of its own: what the agent may do in some minutes is bounded.
        let mut scene = Scene::new()?;
        // Both once before anything counts.
        let (cold, healed) = (scene.cold(fault)?, scene.healed(fault)?);
        ensure!(cold > 0.0 && healed > 0.0, "{cold} and {healed} ms");
        let scene = std::cell::RefCell::new(scene);
        let all = pairs::measure(
            PRECISION,
            || scene.borrow_mut().cold(fault),
            || {
                let mut scene = scene.borrow_mut();
                Ok([scene.healed(fault)?, scene.healed(fault)?])
            },
        )?;
        tell(printer, fault, &all)?;
    }
    Ok(())
}

fn tell(printer: &mut Printer, fault: Fault, all: &Pairs) -> Result<()> {
    let name = format!("after {}, to the right answer", fault.name());
    let p50 = all.figure(&format!("{name}: p50"), "ms", "cold start", Better::Lower);
    printer.print(&p50)?;
    printer.print(&all.figure_at(
        0.99,
        &format!("{name}: p99"),
        "ms",
        "cold start",
        Better::Lower,
    ))
}

/// A node with an agent.
struct Scene {
    agent: Option<Daemon>,
    serving: Serving,
    versions: u64,
}

impl Drop for Scene {
    fn drop(&mut self) {
        let _ = self.serving.api().remove(FUNCTION);
        // Before its spawner.
        self.agent = None;
    }
}

impl Scene {
    fn new() -> Result<Self> {
        let serving = Serving::new(NAME, PARKED)?;
        let more = "[heal]\nfunction_actions = 100000\nnode_actions = 100000";
        let agent = serving.watching(&["oom"], more)?;
        Ok(Self {
            agent: Some(agent),
            serving,
            versions: 0,
        })
    }

    fn api(&self) -> Api {
        self.serving.api()
    }

    /// A version that was never at fault, with as many sandboxes as it always has.
    fn deploy(&mut self, instances: u32, memory: &str) -> Result<()> {
        self.versions += 1;
        let definition = json!({
            "root": [layer("rust")?],
            "command": ["/bootstrap"],
            "environment": { "VERSION": self.versions.to_string() },
            "memory": memory,
            "memory_max": "256MiB",
            "writable": "4MiB",
            "timeout": "20s",
            "min_instances": instances,
            "max_instances": 4,
            "policy": "fixed:600",
            "heal": "act",
            "idempotent": true,
        });
        self.api().deploy(FUNCTION, &definition)?;
        let version = self.versions;
        self.serving.until(
            "its sandboxes are idle, and parked ones are there",
            |serving| {
                let all = serving.api().get("/v1/sandboxes")?;
                let all = all.as_array().context("no list")?;
                let idle =
                    |sandbox: &&Value| sandbox["state"] == "idle" && sandbox["version"] == version;
                let parked = serving.node.spawner()?.slots()?.parked;
                let instances = usize::try_from(instances)?;
                Ok(all.len() == instances
                    && all.iter().filter(idle).count() == instances
                    && parked == u32::from(PARKED))
            },
        )
    }

    /// Milliseconds of a cold start with its request.
    fn cold(&mut self, fault: Fault) -> Result<f64> {
        self.deploy(0, "192MiB")?;
        let payload = match fault {
            Fault::Oom => json!({ "do": "leak", "mib": 80 }),
            _ => json!({ "do": "wait", "until_unix_ms": 0 }),
        };
        let began = Instant::now();
        let reply = self.api().invoke(FUNCTION, &payload, TIME)?;
        let took = began.elapsed();
        is_right(&reply, &payload)?;
        Ok(took.as_secs_f64() * 1e3)
    }

    /// Milliseconds from a fault to the right answer.
    fn healed(&mut self, fault: Fault) -> Result<f64> {
        for _ in 0..TRIES {
            if let Some(took) = self.try_healed(fault)? {
                return Ok(took);
            }
        }
        bail!(
            "{TRIES} times it was answered before the fault: is the machine busy with other things?"
        )
    }

    /// The same; none where the fault came too late, when all was answered.
    fn try_healed(&mut self, fault: Fault) -> Result<Option<f64>> {
        self.deploy(2, "64MiB")?;
        let until = SystemTime::now() + WAIT;
        let payload = match fault {
            Fault::Oom => json!({ "do": "leak", "mib": 80 }),
            Fault::Hang => json!({ "do": "hang" }),
            Fault::Crash | Fault::Init => {
                let until = until.duration_since(SystemTime::UNIX_EPOCH)?;
                json!({ "do": "wait", "until_unix_ms": u64::try_from(until.as_millis())? })
            }
        };
        let api = self.api();
        if fault == Fault::Hang {
            let hung = api.invoke(FUNCTION, &payload, HANGS)?;
            let began = Instant::now();
            let kind = hung.header("hearth-function-error");
            ensure!(kind == Some("Sandbox.Timedout"), "{hung}");
            let payload = json!({ "do": "wait", "until_unix_ms": 0 });
            is_right(&api.invoke(FUNCTION, &payload, TIME)?, &payload)?;
            return Ok(Some(began.elapsed().as_secs_f64() * 1e3));
        }
        let watched = self.processes()?;
        thread::scope(|scope| {
            let asked = scope.spawn(|| -> Result<(Reply, Instant)> {
                let reply = api.invoke(FUNCTION, &payload, TIME)?;
                Ok((reply, Instant::now()))
            });
            if fault != Fault::Oom {
                let busy = self.busy()?;
                let left = until.duration_since(SystemTime::now()).unwrap_or_default();
                thread::sleep(left.saturating_sub(BEFORE));
                let of = watched.iter().find(|of| of.init == busy);
                let of = of.context("it was not there before")?;
                let who = if fault == Fault::Init {
                    &of.of_init
                } else {
                    &of.of_function
                };
                pidfd_send_signal(who, Signal::KILL)?;
            }
            let died = first_end(&watched, fault == Fault::Init)?;
            let (reply, answered) = asked.join().map_err(|_| anyhow!("a client panicked"))??;
            is_right(&reply, &payload)?;
            let took = answered.checked_duration_since(died);
            Ok(took.map(|took| took.as_secs_f64() * 1e3))
        })
    }

    /// The processes of all sandboxes.
    fn processes(&self) -> Result<Vec<Processes>> {
        let all = self.api().get("/v1/sandboxes")?;
        let all = all.as_array().context("no list")?.iter();
        all.map(|sandbox| Processes::of(sandbox["pid"].as_u64().context("no process")?))
            .collect()
    }

    /// The first process of the sandbox that is at work.
    fn busy(&self) -> Result<u64> {
        loop {
            let all = self.api().get("/v1/sandboxes")?;
            let mut all = all.as_array().context("no list")?.iter();
            if let Some(busy) = all.find(|sandbox| sandbox["state"] == "busy") {
                return busy["pid"].as_u64().context("no process");
            }
        }
    }
}

fn is_right(reply: &Reply, payload: &Value) -> Result<()> {
    ensure!(reply.status == 200, "{reply}");
    ensure!(reply.json()?["echo"] == *payload, "{reply}");
    Ok(())
}

/// The first process of a sandbox, and that of its function.
struct Processes {
    init: u64,
    of_init: OwnedFd,
    of_function: OwnedFd,
}

impl Processes {
    fn of(init: u64) -> Result<Self> {
        let children = fs::read_to_string(format!("/proc/{init}/task/{init}/children"))?;
        let child = children.split_whitespace().next().context("no child")?;
        Ok(Self {
            init,
            of_init: pidfd(init)?,
            of_function: pidfd(child.parse()?)?,
        })
    }
}

fn pidfd(pid: u64) -> Result<OwnedFd> {
    let pid = Pid::from_raw(i32::try_from(pid)?).context("no process")?;
    Ok(pidfd_open(pid, PidfdFlags::empty())?)
}

/// When the first of them ended.
fn first_end(all: &[Processes], init: bool) -> Result<Instant> {
    fn of(one: &Processes, init: bool) -> PollFd<'_> {
        let who = if init { &one.of_init } else { &one.of_function };
        PollFd::from_borrowed_fd(who.as_fd(), PollFlags::IN)
    }
    let mut all: Vec<_> = all.iter().map(|one| of(one, init)).collect();
    let limit = rustix::event::Timespec {
        tv_sec: i64::try_from(TIME.as_secs())?,
        tv_nsec: 0,
    };
    ensure!(poll(&mut all, Some(&limit))? > 0, "nobody died");
    Ok(Instant::now())
}
