//! Makes faults happen on a node of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use hearth_tests::api::Api;
use hearth_tests::cgroup;
use hearth_tests::daemon::Daemon;
use hearth_tests::load::{Asked, Load, Request};
use hearth_tests::node::{PATIENCE, Remains, layer};
use hearth_tests::seed::Seed;
use hearth_tests::serving::Serving;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use rustix::time::{ClockId, Timespec, clock_gettime, clock_settime};
use serde_json::{Value, json};

use crate::acted::{self, Acted};
use crate::audit;
use crate::disk::Disk;
use crate::oracles::answers;
use crate::plan::Fault;

/// Sandboxes that are parked.
const PARKED: u16 = 4;
/// Faults of one version of a function: after more of them it would be left alone for long, as it
/// should be, and there was nothing to see.
const OF_A_VERSION: u32 = 2;
/// What is done in ten minutes at most: for a function, and on the node.
pub(crate) const LIMITS: (u32, u32) = (150, 1000);
/// Bytes that a function has by its definition, and that it may be given.
pub(crate) const MEMORY: (u64, u64) = (48 << 20, 96 << 20);
/// The one that is only watched.
pub(crate) const WATCHED: &str = "watched";
/// Bytes of the disk.
const DISK: u64 = 64 << 20;
/// How long it is full.
const FULL: Duration = Duration::from_millis(300);

/// What is done to it.
pub(crate) struct Scene {
    /// None only while another one begins.
    agent: Option<Daemon>,
    /// What the agent writes down is on it.
    disk: Disk,
    serving: Serving,
    /// What is there without a function.
    pub(crate) before: Remains,
    /// Descriptors of the spawner then.
    descriptors: usize,
    pub(crate) happened: Happened,
    functions: BTreeMap<String, Deployed>,
    poisoned: Vec<JoinHandle<Option<String>>>,
    acted: Acted,
}

/// A function that is deployed.
struct Deployed {
    definition: Value,
    versions: u32,
    /// Since the last version.
    faults: u32,
}

fn definition(asked: &Asked) -> Result<Value> {
    Ok(json!({
        "root": [layer("rust")?],
        "command": ["/bootstrap"],
        "memory": format!("{}B", MEMORY.0),
        "memory_max": format!("{}B", MEMORY.1),
        "writable": "4MiB",
        "pids": 64,
        "timeout": "20s",
        "min_instances": 1,
        "max_instances": 3,
        "heal": if is_watched(&asked.name) { "observe" } else { "act" },
        "idempotent": asked.idempotent,
    }))
}

/// Of this one faults are told, and nothing is done about them.
pub(crate) fn is_watched(function: &str) -> bool {
    function == WATCHED
}

/// A sandbox that was killed: nobody asked it for anything that would explain its end.
pub(crate) struct Killed {
    /// Which.
    pub(crate) sandbox: String,
    /// Of which function.
    pub(crate) function: String,
    /// When.
    pub(crate) at: Instant,
}

/// What happened when, for what follows from it.
#[derive(Default)]
pub(crate) struct Happened {
    pub(crate) killed: Vec<Killed>,
    /// Times when the agent was gone, or could not write anything down.
    pub(crate) blind: Vec<(Instant, Instant)>,
    /// Sandboxes of which a process was stopped.
    pub(crate) stopped: Vec<String>,
    /// Functions that got a new version: what the old one has goes.
    pub(crate) deployed: Vec<(String, Instant)>,
    /// Memory limits that sandboxes had, by function and version.
    pub(crate) limits: BTreeSet<(String, u64, u64)>,
}

impl Happened {
    /// Whether a function got a new version between these.
    pub(crate) fn was_deployed(&self, function: &str, from: Instant, until: Instant) -> bool {
        let mut deployed = self.deployed.iter();
        deployed.any(|(name, at)| name == function && (from..=until).contains(at))
    }

    /// Whether the agent may not have known, or not written down, what happened between these.
    pub(crate) fn was_blind(&self, from: Instant, until: Instant) -> bool {
        let mut blind = self.blind.iter();
        blind.any(|(begin, end)| *begin <= until && from <= *end)
    }
}

impl Scene {
    pub(crate) fn new(asked: &[Asked]) -> Result<Self> {
        let serving = Serving::new("faults", PARKED)?;
        let before = serving.node.remains()?;
        let descriptors = descriptors(&serving)?;
        let disk = Disk::mount(serving.folder(), DISK)?;
        let mut scene = Self {
            serving,
            agent: None,
            before,
            descriptors,
            happened: Happened::default(),
            functions: BTreeMap::new(),
            poisoned: Vec::new(),
            acted: Acted::default(),
            disk,
        };
        scene.start_agent()?;
        for asked in asked {
            let definition = definition(asked)?;
            scene.api().deploy(&asked.name, &definition)?;
            let deployed = Deployed {
                definition,
                versions: 1,
                faults: 0,
            };
            scene.functions.insert(asked.name.clone(), deployed);
            scene.acted.read(&scene.serving, &asked.name)?;
        }
        Ok(scene)
    }

    pub(crate) fn api(&self) -> Api {
        self.serving.api()
    }

    fn start_agent(&mut self) -> Result<()> {
        let more = format!(
            "[heal]\nfunction_actions = {}\nnode_actions = {}",
            LIMITS.0, LIMITS.1,
        );
        self.agent = Some(self.serving.watching(&["cold_start", "oom"], &more)?);
        let mut names = self.functions.keys();
        names.try_for_each(|name| self.acted.read(&self.serving, name))
    }

    /// Does something while the agent is blind.
    fn blind(&mut self, work: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        let began = Instant::now();
        let done = work(self);
        self.happened.blind.push((began, Instant::now()));
        done
    }

    /// What goes wrong now.
    pub(crate) fn inject(&mut self, fault: Fault, seed: &mut Seed) -> Result<()> {
        match fault {
            Fault::Oom => self.poison(json!({ "do": "act", "then": "hog" }), seed),
            Fault::Exit => self.poison(json!({ "do": "act", "then": "exit" }), seed),
            Fault::Hang => self.poison(json!({ "do": "act", "then": "hang" }), seed),
            Fault::ForkBomb => self.poison(json!({ "do": "fork" }), seed),
            Fault::Fill => self.poison(json!({ "do": "fill" }), seed),
            Fault::KillFunction => self
                .at_fault(seed, 1)
                .and_then(|of| self.signal(&of, seed, Signal::KILL, true)),
            Fault::StopFunction => self
                .at_fault(seed, 1)
                .and_then(|of| self.signal(&of, seed, Signal::STOP, true)),
            Fault::StopInit => self
                .at_fault(seed, 1)
                .and_then(|of| self.signal(&of, seed, Signal::STOP, false)),
            Fault::KillInit => self
                .at_fault(seed, 1)
                .and_then(|of| self.signal(&of, seed, Signal::KILL, false)),
            Fault::KillSpawner => {
                self.serving.node.kill_spawner()?;
                self.serving.node.start_spawner(PARKED)
            }
            Fault::KillAgent => self.blind(|scene| {
                scene.agent = None;
                scene.start_agent()
            }),
            Fault::KillBoth => self.blind(|scene| {
                scene.agent = None;
                scene.serving.node.kill_spawner()?;
                scene.serving.node.start_spawner(PARKED)?;
                scene.start_agent()
            }),
            Fault::FullDisk => {
                // Nothing can be deployed then.
                let of = self.at_fault(seed, 1)?;
                self.blind(|scene| {
                    scene.disk.fill()?;
                    let killed = scene.signal(&of, seed, Signal::KILL, true);
                    thread::sleep(FULL);
                    scene.disk.free()?;
                    killed
                })
            }
            Fault::Clock => step_clock(seed),
        }
    }

    /// A request that goes wrong, of any function.
    fn poison(&mut self, mut payload: Value, seed: &mut Seed) -> Result<()> {
        payload["nonce"] = json!(format!("poison-{:016x}", seed.next()));
        // What goes wrong may do so again, in another sandbox.
        let name = self.at_fault(seed, OF_A_VERSION)?;
        let api = self.api();
        self.poisoned.push(thread::spawn(move || {
            // The connection goes where the agent is killed.
            let reply = api.invoke(&name, &payload, Duration::from_secs(10)).ok()?;
            let failed = reply.headers.contains_key("hearth-function-error");
            let survives = matches!(payload["do"].as_str(), Some("fork" | "fill"));
            let is_right = match reply.status {
                200 => failed || survives,
                429 | 502 | 503 => true,
                _ => false,
            };
            (!is_right).then(|| format!("{payload} got {reply}"))
        }));
        Ok(())
    }

    /// Signals a process of a sandbox of a function; where it has none, nobody.
    fn signal(
        &mut self,
        name: &str,
        seed: &mut Seed,
        signal: Signal,
        function: bool,
    ) -> Result<()> {
        let version = self.functions.get(name).map(|deployed| deployed.versions);
        let all = self.api().get("/v1/sandboxes")?;
        let all = all.as_array().context("no list")?.iter();
        let limits = all.clone().filter_map(|sandbox| {
            let limit = limit(self.serving.node.name(), sandbox["slot"].as_str()?)?;
            let function = sandbox["function"].as_str()?.to_owned();
            Some((function, sandbox["version"].as_u64()?, limit))
        });
        self.happened.limits.extend(limits);
        // What is older ends anyway.
        let current = |sandbox: &&Value| {
            sandbox["function"] == name && sandbox["version"].as_u64() == version.map(u64::from)
        };
        let (busy, idle): (Vec<&Value>, Vec<&Value>) = all
            .filter(current)
            .partition(|sandbox| sandbox["state"] == "busy");
        // Mostly one that is at work.
        let rather = if busy.is_empty() || seed.below(4) == 0 {
            idle
        } else {
            busy
        };
        let Some(sandbox) = seed.one_of(&rather) else {
            return Ok(());
        };
        let init = sandbox["pid"].as_u64().context("no process")?;
        let pid = if function { child(init) } else { Some(init) };
        let signalled = pid.is_some_and(|pid| kill(pid, self.serving.node.name(), signal));
        let id = sandbox["id"].as_str().context("no id")?.to_owned();
        if signalled && signal == Signal::STOP {
            self.happened.stopped.push(id);
        } else if signalled && !self.happened.stopped.contains(&id) {
            // Nobody is there to see it where the first process is stopped.
            self.happened.killed.push(Killed {
                sandbox: id,
                function: name.to_owned(),
                at: Instant::now(),
            });
        }
        Ok(())
    }

    /// Chooses a function that is at fault once more: a new version of it has a clean record.
    fn at_fault(&mut self, seed: &mut Seed, times: u32) -> Result<String> {
        let api = self.api();
        let mut all: Vec<_> = self.functions.iter_mut().collect();
        let index = usize::try_from(seed.below(all.len() as u64))?;
        let (name, deployed) = all.swap_remove(index);
        deployed.faults += times;
        if deployed.faults > OF_A_VERSION {
            deployed.faults = times;
            deployed.versions += 1;
            deployed.definition["environment"]["VERSION"] = json!(deployed.versions.to_string());
            // What the agent was told before it was killed it does.
            let began = Instant::now();
            api.deploy(name, &deployed.definition)?;
            self.happened.deployed.push((name.clone(), began));
        }
        Ok(name.clone())
    }

    /// Waits until every function answers.
    pub(crate) fn all_answer(&self, load: &Load, asked: &[Asked]) -> Result<()> {
        let before: Vec<usize> = asked.iter().map(|asked| load.right(&asked.name)).collect();
        let deadline = Instant::now() + PATIENCE;
        for (asked, before) in asked.iter().zip(before) {
            while load.right(&asked.name) <= before {
                ensure!(
                    Instant::now() < deadline,
                    "{} answers no more: {}\n{}",
                    asked.name,
                    self.api().get(&format!("/v1/functions/{}", asked.name))?,
                    self.agent.as_ref().map(Daemon::errors).unwrap_or_default()
                );
                thread::sleep(Duration::from_millis(10));
            }
        }
        Ok(())
    }

    /// Ends all of it; what is not as it should be, and the name that everything of it has.
    pub(crate) fn end(mut self, requests: &[Request]) -> Result<(Vec<String>, String)> {
        let mut wrong = Vec::new();
        for poisoned in self.poisoned.drain(..) {
            let told = poisoned.join().map_err(|_| anyhow!("a client panicked"))?;
            wrong.extend(told.map(|told| format!("poisoned: {told}")));
        }
        for name in self.functions.keys() {
            self.api().remove(name)?;
        }
        self.serving.node.settled(&self.before)?;
        let name = self.serving.node.name().to_owned();
        let audit = self.serving.audit();
        self.agent.take().context("no agent")?.stop()?;
        let deadline = Instant::now() + PATIENCE;
        while descriptors(&self.serving)? > self.descriptors {
            if Instant::now() > deadline {
                let now = descriptors(&self.serving)?;
                wrong.push(format!(
                    "the spawner has {now} descriptors, and had {}",
                    self.descriptors
                ));
                break;
            }
            thread::sleep(Duration::from_millis(20));
        }
        wrong.extend(answers(requests, &self.happened));
        let audited = audit::read(&audit, &mut wrong);
        let done = self.acted.times()?;
        wrong.extend(match audited {
            Ok(lines) => audit::wrong(&lines, requests, &self.happened, &done),
            Err(error) => vec![format!("{error:#}")],
        });
        wrong.extend(acted::wrong(&done, requests));
        Ok((wrong, name))
    }
}

fn descriptors(serving: &Serving) -> Result<usize> {
    let pid = serving.node.spawner_pid()?;
    Ok(fs::read_dir(format!("/proc/{pid}/fd"))?.count())
}

/// The memory that the sandbox in a slot may have, as the kernel has it; none where it is gone.
fn limit(node: &str, slot: &str) -> Option<u64> {
    let mounts = cgroup::mounts().ok()?;
    let files = mounts.iter().flat_map(|mount| {
        let slot = mount.join(node).join(slot);
        ["memory.limit_in_bytes", "memory.max"].map(|file| slot.join(file))
    });
    let mut limits = files.filter_map(|file| fs::read_to_string(file).ok());
    limits.find_map(|text| text.trim().parse().ok())
}

/// The only child of the first process of a sandbox, if it is there yet.
fn child(init: u64) -> Option<u64> {
    let children = fs::read_to_string(format!("/proc/{init}/task/{init}/children")).ok()?;
    children.split_whitespace().next()?.parse().ok()
}

/// Signals a process of this node; one that is gone needs no signal.
fn kill(pid: u64, node: &str, signal: Signal) -> bool {
    let process = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let process = process.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
    let Some(process) = process else {
        return false;
    };
    // Whoever has the number now is the one that is held.
    let cgroup = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    cgroup.contains(&format!("/{node}/slot-")) && pidfd_send_signal(process, signal).is_ok()
}

/// Sets the clock of the day by up to an hour, to and fro.
fn step_clock(seed: &mut Seed) -> Result<()> {
    let hour = i64::try_from(seed.below(7200))? - 3600;
    let now = clock_gettime(ClockId::Realtime);
    let then = Timespec {
        tv_sec: now.tv_sec + hour,
        tv_nsec: now.tv_nsec,
    };
    clock_settime(ClockId::Realtime, then).context("set the clock")
}
