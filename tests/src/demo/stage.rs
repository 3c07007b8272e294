//! Where the story plays.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};

use crate::api::{Api, Reply};
use crate::cgroup;
use crate::child;
use crate::daemon::Daemon;
use crate::node::{PATIENCE, Remains, layer};
use crate::serving::Serving;
use crate::trace;

/// Who tells it.
pub trait Narrator {
    /// What comes next.
    fn act(&mut self, title: &str);
    /// What is done.
    fn does(&mut self, text: &str);
    /// What is seen then.
    fn sees(&mut self, text: &str);
}

/// Whether the story is to end at once.
pub type Stop = Arc<AtomicBool>;

/// How long a request may take.
pub(super) const TIME: Duration = Duration::from_secs(20);
/// Sandboxes that are parked.
const PARKED: u16 = 4;

/// Waits until something is so, as long as nobody wants the end.
pub(super) fn until(
    stop: &Stop,
    what: &str,
    mut is_so: impl FnMut() -> Result<bool>,
) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !is_so()? {
        ensure!(!stop.load(Ordering::Relaxed), "interrupted");
        ensure!(Instant::now() < deadline, "never so: {what}");
        thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// A node, its agent, and who tells of them.
pub(super) struct Stage<'a> {
    // Ended first: an agent whose spawner is gone complains.
    agent: Daemon,
    pub(super) serving: Serving,
    before: Remains,
    narrator: &'a mut dyn Narrator,
    pub(super) stop: &'a Stop,
}

impl<'a> Stage<'a> {
    pub(super) fn set(name: &str, narrator: &'a mut dyn Narrator, stop: &'a Stop) -> Result<Self> {
        let serving = Serving::new(name, PARKED)?;
        let before = serving.node.remains()?;
        let agent = serving.watching(&["cold_start", "oom"], "")?;
        Ok(Self {
            agent,
            serving,
            before,
            narrator,
            stop,
        })
    }

    pub(super) fn act(&mut self, title: &str) -> Result<()> {
        self.goes_on()?;
        self.narrator.act(title);
        Ok(())
    }

    pub(super) fn does(&mut self, text: impl AsRef<str>) {
        self.narrator.does(text.as_ref());
    }

    pub(super) fn sees(&mut self, text: impl AsRef<str>) {
        self.narrator.sees(text.as_ref());
    }

    /// Fails where somebody wants the end.
    pub(super) fn goes_on(&self) -> Result<()> {
        ensure!(!self.stop.load(Ordering::Relaxed), "interrupted");
        Ok(())
    }

    pub(super) fn api(&self) -> Api {
        self.serving.api()
    }

    pub(super) fn parked(&self) -> Result<u32> {
        Ok(self.serving.node.spawner()?.slots()?.parked)
    }

    /// Deploys the test function with more in its definition; its version.
    pub(super) fn deploy(&self, name: &str, more: Value) -> Result<u64> {
        let mut definition = json!({
            "root": [layer("rust")?],
            "command": ["/bootstrap"],
            "memory": "64MiB",
            "writable": "4MiB",
            "timeout": "20s",
        });
        if let (Some(all), Value::Object(more)) = (definition.as_object_mut(), more) {
            all.extend(more);
        }
        self.api().deploy(name, &definition)
    }

    /// Has a function do something.
    pub(super) fn invoke(&self, name: &str, payload: &Value) -> Result<Reply> {
        self.goes_on()?;
        self.api().invoke(name, payload, TIME)
    }

    /// The sandboxes of a function.
    pub(super) fn sandboxes(&self, function: &str) -> Result<Vec<Value>> {
        let all = self.api().get("/v1/sandboxes")?;
        let Value::Array(all) = all else {
            bail!("no list: {all}");
        };
        let of = |sandbox: &Value| sandbox["function"] == function;
        Ok(all.into_iter().filter(of).collect())
    }

    /// The limit of memory of a slot, as the kernel has it: the file, and bytes.
    pub(super) fn limit(&self, slot: &str) -> Result<(PathBuf, u64)> {
        let hierarchy = cgroup::Hierarchy::memory()?;
        let directory = hierarchy.mount.join(self.serving.node.name()).join(slot);
        let name = if hierarchy.v2 {
            "memory.max"
        } else {
            "memory.limit_in_bytes"
        };
        let file = directory.join(name);
        let text = fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
        let bytes = text.trim().parse().with_context(|| text.clone())?;
        Ok((file, bytes))
    }

    /// A count of the agent, of all samples with these labels; none where it has none yet.
    pub(super) fn count(&self, name: &str, labels: &[(&str, &str)]) -> Result<u64> {
        Ok(self.agent.scrape()?.count(name, labels).unwrap_or(0))
    }

    /// A figure of the agent about a function; zero where it has none yet.
    pub(super) fn figure(&self, name: &str, function: &str) -> Result<f64> {
        let scrape = self.agent.scrape()?;
        let of = [("faas_name", function)];
        let sample = scrape.matching(name, &of).next();
        Ok(sample.map_or(Ok(0.0), |sample| sample.value.parse())?)
    }

    /// What a command of `hearth` prints about what this agent keeps.
    pub(super) fn told(&self, arguments: &[&str]) -> Result<Vec<String>> {
        let mut command = std::process::Command::new(trace::hearth()?);
        let config = self.agent.folder().join("hearth.toml");
        command.args(arguments).arg("--config").arg(config);
        let told = child::run(&mut command, PATIENCE)?.success()?.stdout;
        Ok(told.lines().map(str::to_owned).collect())
    }

    pub(super) fn until(&self, what: &str, is_so: impl FnMut() -> Result<bool>) -> Result<()> {
        let so = until(self.stop, what, is_so);
        so.with_context(|| self.agent.errors())
    }

    /// Removes every function and ends agent and spawner.
    pub(super) fn end(self) -> Result<()> {
        let all = self.api().get("/v1/functions")?;
        for function in all.as_array().context("no list")? {
            self.api()
                .remove(function["name"].as_str().context("no name")?)?;
        }
        self.serving.node.settled(&self.before)?;
        self.agent.stop()
    }
}
