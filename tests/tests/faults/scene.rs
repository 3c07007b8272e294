//! A node of its own, its agent, and the functions that are asked.

use std::collections::BTreeMap;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use hearth_tests::api::Api;
use hearth_tests::daemon::Daemon;
use hearth_tests::load::{Asked, Load, Request};
use hearth_tests::node::{PATIENCE, Remains, layer};
use hearth_tests::seed::Seed;
use hearth_tests::serving::Serving;
use serde_json::{Value, json};

use crate::acted::{self, Acted};
use crate::audit;
use crate::disk::Disk;
use crate::happened::Happened;
use crate::oracles::answers;
use crate::process::descriptors;

/// Sandboxes that are parked.
pub(crate) const PARKED: u16 = 4;
/// Faults of one version of a function: after more of them it would be left alone for long, as it
/// should be, and there was nothing to see.
pub(crate) const OF_A_VERSION: u32 = 2;
/// What is done in ten minutes at most: for a function, and on the node.
pub(crate) const LIMITS: (u32, u32) = (150, 1000);
/// Bytes that a function has by its definition, and that it may be given.
pub(crate) const MEMORY: (u64, u64) = (48 << 20, 96 << 20);
/// The one that is only watched.
pub(crate) const WATCHED: &str = "watched";
/// Bytes of the disk.
const DISK: u64 = 64 << 20;

/// What is done to it.
pub(crate) struct Scene {
    /// None only while another one begins.
    pub(crate) agent: Option<Daemon>,
    /// What the agent writes down is on it.
    pub(crate) disk: Disk,
    pub(crate) serving: Serving,
    /// What is there without a function.
    before: Remains,
    /// Descriptors of the spawner then.
    descriptors: usize,
    pub(crate) happened: Happened,
    pub(crate) functions: BTreeMap<String, Deployed>,
    pub(crate) poisoned: Vec<JoinHandle<Option<String>>>,
    acted: Acted,
}

/// A function that is deployed.
pub(crate) struct Deployed {
    definition: Value,
    pub(crate) versions: u32,
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

    pub(crate) fn start_agent(&mut self) -> Result<()> {
        let more = format!(
            "[heal]\nfunction_actions = {}\nnode_actions = {}",
            LIMITS.0, LIMITS.1,
        );
        self.agent = Some(self.serving.watching(&["cold_start", "oom"], &more)?);
        let mut names = self.functions.keys();
        names.try_for_each(|name| self.acted.read(&self.serving, name))
    }

    /// Chooses a function that is at fault once more: a new version of it has a clean record.
    pub(crate) fn at_fault(&mut self, seed: &mut Seed, times: u32) -> Result<String> {
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
    pub(crate) fn end(
        mut self,
        requests: &[Request],
        began: Instant,
    ) -> Result<(Vec<String>, String)> {
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
        wrong.extend(answers(requests, &self.happened, began));
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
