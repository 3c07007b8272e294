//! `hearth run`, as a service manager runs it.

use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::child::Guard;
use crate::metrics::{Sample, Scrape};
use crate::start::Start;
use crate::trace;

/// What it has written so far.
#[derive(Debug, Default)]
struct Told {
    starts: Vec<Start>,
    other: Vec<String>,
    errors: String,
}

/// A running agent; killed when dropped.
#[derive(Debug)]
pub struct Daemon {
    child: Guard,
    told: Arc<(Mutex<Told>, Condvar)>,
    metrics: SocketAddr,
    folder: TempDir,
}

/// An address of the loopback network that nobody listens at, nor will: each call has a host
/// of its own, so that a port found free is not given to the next who asks for any port.
pub fn free_address() -> Result<SocketAddr> {
    static CALLS: AtomicU8 = AtomicU8::new(0);
    let [.., high, low] = std::process::id().to_be_bytes();
    let call = CALLS.fetch_add(1, Ordering::Relaxed);
    // 127.0.x.x is left to whoever knows only 127.0.0.1.
    let host = Ipv4Addr::new(127, high | 0x80, low, call);
    let listener = TcpListener::bind((host, 0)).context("find a free port")?;
    listener.local_addr().context("ask for the port")
}

fn write_config(path: &Path, metrics: SocketAddr, settings: &str, more: &str) -> Result<()> {
    let mut file = OpenOptions::new()
        .create_new(true)
        .write(true)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("make {}", path.display()))?;
    // A directory of captures has one agent.
    let oom = if settings.contains("[oom]") {
        String::new()
    } else {
        let folder = path.parent().context("a folder")?;
        format!("[oom]\ndir = \"{}\"\n", folder.join("oom").display())
    };
    write!(
        file,
        "{settings}\n{oom}[metrics]\nlisten = \"{metrics}\"\n{more}\n[print]\nformat = \"json\"\n"
    )
    .context("write the configuration")
}

impl Daemon {
    /// Starts one with `settings` (a `hearth.toml` without `[metrics]` and `[print]`), and waits
    /// until it says that it is ready.
    pub fn start(settings: &str) -> Result<Self> {
        Self::start_at(free_address()?, settings)
    }

    /// Starts one with `more` lines in `[metrics]`.
    pub fn start_with(settings: &str, more: &str) -> Result<Self> {
        Self::launch(free_address()?, settings, more)
    }

    /// Starts one that serves its metrics at `metrics`.
    pub fn start_at(metrics: SocketAddr, settings: &str) -> Result<Self> {
        Self::launch(metrics, settings, "")
    }

    fn launch(metrics: SocketAddr, settings: &str, more: &str) -> Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("hearth-daemon-")
            .tempdir()
            .context("make a folder for the agent")?;
        let config = folder.path().join("hearth.toml");
        write_config(&config, metrics, settings, more)?;
        let notify = folder.path().join("notify");
        let socket = UnixDatagram::bind(&notify).context("bind NOTIFY_SOCKET")?;
        socket
            .set_read_timeout(Some(Duration::from_millis(50)))
            .context("set a time limit")?;

        let mut child = Command::new(trace::hearth()?)
            .args(["run", "--config"])
            .arg(&config)
            .env("NOTIFY_SOCKET", &notify)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("run the agent")?;
        let told = Arc::default();
        read_starts(child.stdout.take().context("standard output")?, &told);
        read_errors(child.stderr.take().context("standard error")?, &told);
        let mut daemon = Self {
            child: Guard(child),
            told,
            metrics,
            folder,
        };
        daemon.wait_until_ready(&socket)?;
        Ok(daemon)
    }

    fn wait_until_ready(&mut self, socket: &UnixDatagram) -> Result<()> {
        let deadline = Instant::now() + Duration::from_mins(4);
        let mut message = [0; 4096];
        loop {
            if let Ok(length) = socket.recv(&mut message)
                && String::from_utf8_lossy(&message[..length])
                    .lines()
                    .any(|l| l == "READY=1")
            {
                return Ok(());
            }
            if let Some(status) = self.child.0.try_wait().context("wait for the agent")? {
                bail!("the agent ended with {status}: {}", self.errors());
            }
            ensure!(
                Instant::now() < deadline,
                "it never said READY=1: {}",
                self.errors()
            );
        }
    }

    /// Where it serves its metrics and its page.
    #[must_use]
    pub const fn metrics(&self) -> SocketAddr {
        self.metrics
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.0.id()
    }

    /// The folder of its configuration, for whatever else the test makes.
    #[must_use]
    pub fn folder(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    /// What it wrote to its standard error so far.
    #[must_use]
    pub fn errors(&self) -> String {
        self.told
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .errors
            .clone()
    }

    /// Lines of its standard output that are no start.
    #[must_use]
    pub fn other(&self) -> Vec<String> {
        self.told
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .other
            .clone()
    }

    /// The starts that `wanted` takes, so far.
    pub fn starts(&self, wanted: impl Fn(&Start) -> bool) -> Vec<Start> {
        let told = self.told.0.lock().unwrap_or_else(PoisonError::into_inner);
        told.starts
            .iter()
            .filter(|start| wanted(start))
            .cloned()
            .collect()
    }

    /// Waits for `count` starts that `wanted` takes.
    pub fn wait_for(&self, count: usize, wanted: impl Fn(&Start) -> bool) -> Result<Vec<Start>> {
        let deadline = Instant::now() + Duration::from_secs(30);
        let mut told = self.told.0.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let found: Vec<Start> = told
                .starts
                .iter()
                .filter(|start| wanted(start))
                .cloned()
                .collect();
            if found.len() >= count {
                return Ok(found);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let seen: Vec<String> =
                    told.starts.iter().rev().take(20).map(Start::line).collect();
                let (all, errors) = (told.starts.len(), told.errors.clone());
                drop(told);
                bail!(
                    "{} starts instead of {count}; the last of {all} told:\n{}\n{errors}\nlosses: {:?}",
                    found.len(),
                    seen.join("\n"),
                    self.losses()
                );
            }
            told = self
                .told
                .1
                .wait_timeout(told, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// Its metrics now.
    pub fn scrape(&self) -> Result<Scrape> {
        Scrape::of(self.metrics)
    }

    /// What it counts as lost: dropped records, full queues, evicted starts.
    pub fn losses(&self) -> Result<Vec<Sample>> {
        let counts_losses = |sample: &Sample| {
            sample
                .labels
                .get("fate")
                .is_some_and(|fate| fate.starts_with("dropped"))
                || sample.name.starts_with("hearth_agent_queue_dropped")
                || sample.name.starts_with("hearth_agent_starts_evicted")
        };
        let samples = self.scrape()?.samples.into_iter();
        Ok(samples
            .filter(|sample| counts_losses(sample) && sample.value != "0")
            .collect())
    }

    /// Its proportional set size, bytes.
    pub fn pss(&self) -> Result<u64> {
        let path = format!("/proc/{}/smaps_rollup", self.pid());
        let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
        let kib = text
            .lines()
            .find_map(|line| line.strip_prefix("Pss:"))
            .and_then(|value| value.trim().strip_suffix(" kB"))
            .with_context(|| format!("{path} has no Pss"))?;
        Ok(kib.trim().parse::<u64>().context("parse Pss")? * 1024)
    }

    /// What it has of its heap in memory, bytes.
    pub fn heap(&self) -> Result<u64> {
        let path = format!("/proc/{}/smaps", self.pid());
        let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
        let mut heap = text.lines().skip_while(|line| !line.ends_with("[heap]"));
        let kib = heap
            .find_map(|line| line.strip_prefix("Rss:"))
            .and_then(|value| value.trim().strip_suffix(" kB"))
            .with_context(|| format!("{path} has no heap"))?;
        Ok(kib.trim().parse::<u64>().context("parse Rss")? * 1024)
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.pid())
            .ok()
            .and_then(Pid::from_raw)
            .context("its id")?;
        kill_process(pid, signal).context("signal the agent")
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        self.child
            .wait(Duration::from_secs(30))
            .with_context(|| self.errors())
    }

    /// Asks it to end, waits, and fails unless it ended well.
    pub fn stop(self) -> Result<()> {
        self.stop_and_tell().map(drop)
    }

    /// As [`Self::stop`]; what it wrote of its own affairs, too.
    pub fn stop_and_tell(mut self) -> Result<String> {
        self.signal(Signal::TERM)?;
        let status = self.wait()?;
        ensure!(
            status.success(),
            "the agent ended with {status}: {}",
            self.errors()
        );
        Ok(self.errors())
    }
}

fn read_starts(from: impl Read + Send + 'static, told: &Arc<(Mutex<Told>, Condvar)>) {
    let told = Arc::clone(told);
    thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            let start = serde_json::from_str(&line);
            let mut held = told.0.lock().unwrap_or_else(PoisonError::into_inner);
            match start {
                Ok(start) => held.starts.push(start),
                Err(_) => held.other.push(line),
            }
            told.1.notify_all();
        }
    });
}

fn read_errors(from: impl Read + Send + 'static, told: &Arc<(Mutex<Told>, Condvar)>) {
    let told = Arc::clone(told);
    thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            let mut held = told.0.lock().unwrap_or_else(PoisonError::into_inner);
            held.errors.push_str(&line);
            held.errors.push('\n');
        }
    });
}
