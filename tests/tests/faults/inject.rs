//! Makes faults happen.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use hearth_tests::seed::Seed;
use rustix::process::Signal;
use rustix::time::{ClockId, Timespec, clock_gettime, clock_settime};
use serde_json::{Value, json};

use crate::happened::Signalled;
use crate::plan::Fault;
use crate::process::{child, kill, limit};
use crate::scene::{OF_A_VERSION, PARKED, Scene};

/// How long a disk is full.
const FULL: Duration = Duration::from_millis(300);

impl Scene {
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
            let (slot, init) = (sandbox["slot"].as_str()?, sandbox["pid"].as_u64()?);
            let limit = limit(self.serving.node.name(), slot, init)?;
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
        if !signalled {
            return Ok(());
        }
        let signalled = Signalled {
            sandbox: sandbox["id"].as_str().context("no id")?.to_owned(),
            function: name.to_owned(),
            at: Instant::now(),
        };
        if signal == Signal::STOP {
            self.happened.stopped.push(signalled);
        } else if !self.happened.is_stopped(&signalled.sandbox) {
            // Nobody is there to see it where the first process is stopped.
            self.happened.killed.push(signalled);
        }
        Ok(())
    }
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
