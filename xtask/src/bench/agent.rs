//! The agent while it is measured.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use hearth_tests::daemon::free_address;
use hearth_tests::metrics::Scrape;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// How long the agent may take to attach its probes.
const PATIENCE: Duration = Duration::from_mins(4);

/// The folder of its captures, in its own.
const CAPTURES: &str = "captures";

/// Which probes are attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Set {
    /// Those that are always on.
    AlwaysOn,
    /// These and the watch set, all the time.
    Watch,
}

/// A running `hearth run` that prints nothing; killed when dropped.
pub(crate) struct Agent {
    child: Child,
    metrics: SocketAddr,
    // Holds the configuration for as long as the agent may read it, and its captures.
    folder: TempDir,
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Agent {
    /// Starts it with every signal and waits until its probes are attached.
    pub(crate) fn start(agent: &Path, set: Set) -> Result<Self> {
        let share = match set {
            Set::AlwaysOn => "0.0",
            Set::Watch => "1.0",
        };
        let settings = format!("mode = \"process\"\nwatch_share = {share}\n");
        Self::with(agent, &settings)
    }

    /// Starts it with `settings` (a `hearth.toml` without sections) and waits until its probes are
    /// attached.
    pub(crate) fn with(agent: &Path, settings: &str) -> Result<Self> {
        let folder = TempDir::with_prefix("hearth-bench-").context("make a folder")?;
        let metrics = free_address()?;
        let config = folder.path().join("hearth.toml");
        let captures = folder.path().join(CAPTURES);
        let mut file = fs::OpenOptions::new()
            .create_new(true)
            .write(true)
            .mode(0o600)
            .open(&config)
            .context("make a configuration")?;
        write!(
            file,
            "{settings}[metrics]\nlisten = \"{metrics}\"\n[print]\nformat = \"off\"\n\
             [oom]\ndir = \"{}\"\nmax_captures = 1000000\nmax_bytes = \"8GiB\"\n",
            captures.display()
        )?;
        fs::DirBuilder::new()
            .mode(0o700)
            .create(&captures)
            .context("make a folder for captures")?;
        let notify = folder.path().join("notify");
        let socket = UnixDatagram::bind(&notify).context("bind NOTIFY_SOCKET")?;
        socket.set_read_timeout(Some(Duration::from_millis(50)))?;
        let child = Command::new(agent)
            .args(["--log", "error", "run", "--config"])
            .arg(&config)
            .env("NOTIFY_SOCKET", &notify)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .with_context(|| format!("start {}", agent.display()))?;
        let mut agent = Self {
            child,
            metrics,
            folder,
        };
        agent.wait_until_ready(&socket)?;
        Ok(agent)
    }

    fn wait_until_ready(&mut self, socket: &UnixDatagram) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let mut message = [0; 4096];
        while Instant::now() < deadline {
            if let Ok(length) = socket.recv(&mut message)
                && String::from_utf8_lossy(&message[..length])
                    .lines()
                    .any(|line| line == "READY=1")
            {
                return Ok(());
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("the agent ended with {status} before it was ready");
            }
        }
        bail!("the agent was not ready after {} s", PATIENCE.as_secs())
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its metrics now.
    pub(crate) fn scrape(&self) -> Result<Scrape> {
        Scrape::of(self.metrics)
    }

    /// Asks it to end, and waits.
    pub(crate) fn stop(mut self) -> Result<()> {
        let pid = i32::try_from(self.child.id())
            .ok()
            .and_then(Pid::from_raw)
            .context("its id")?;
        kill_process(pid, Signal::TERM).context("signal the agent")?;
        let status = self.child.wait()?;
        ensure!(status.success(), "the agent ended with {status}");
        Ok(())
    }

    /// Where it keeps its captures, all of them.
    pub(crate) fn captures(&self) -> PathBuf {
        self.folder.path().join(CAPTURES)
    }

    /// Its proportional set size, MiB.
    pub(crate) fn pss(&self) -> Result<f64> {
        let text = self.read("smaps_rollup")?;
        let kib = text
            .lines()
            .find_map(|line| line.strip_prefix("Pss:")?.trim().strip_suffix(" kB"))
            .context("smaps_rollup has no Pss")?;
        Ok(kib.trim().parse::<f64>().context("Pss")? / 1024.0)
    }

    /// Processor time of all its threads that live, seconds.
    pub(crate) fn processor_seconds(&self) -> Result<f64> {
        let mut seconds = 0.0;
        for task in fs::read_dir(format!("/proc/{}/task", self.child.id()))? {
            let text = fs::read_to_string(task?.path().join("schedstat")).unwrap_or_default();
            let running = text.split_whitespace().next().unwrap_or("0");
            seconds += running.parse::<f64>().context("schedstat")? / 1e9;
        }
        Ok(seconds)
    }

    /// All that any probe dropped, for whatever reason.
    pub(crate) fn lost(&self) -> Result<f64> {
        let scrape = Scrape::of(self.metrics)?;
        let mut lost = 0.0;
        let mut is_told = false;
        for sample in scrape.matching("hearth_probe_events_total", &[]) {
            is_told = true;
            let fate = sample.labels.get("fate");
            if fate.is_some_and(|fate| fate.starts_with("dropped")) {
                let value = sample.value.parse::<f64>();
                lost += value.context("hearth_probe_events_total")?;
            }
        }
        ensure!(is_told, "the agent tells no hearth_probe_events_total");
        Ok(lost)
    }

    /// Ids of the programs that it has in the kernel.
    pub(crate) fn program_ids(&self) -> Result<BTreeSet<u32>> {
        let mut ids = BTreeSet::new();
        for file in fs::read_dir(format!("/proc/{}/fdinfo", self.child.id()))? {
            let text = fs::read_to_string(file?.path()).unwrap_or_default();
            let id = text.lines().find_map(|line| line.strip_prefix("prog_id:"));
            ids.extend(id.and_then(|id| id.trim().parse::<u32>().ok()));
        }
        Ok(ids)
    }

    fn read(&self, name: &str) -> Result<String> {
        let path = format!("/proc/{}/{name}", self.child.id());
        fs::read_to_string(&path).with_context(|| format!("read {path}"))
    }
}
