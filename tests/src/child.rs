//! A child process with an end: its output is collected, and it is gone when the test is.

use std::io::Read;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// What a finished child left.
#[derive(Debug)]
pub struct Finished {
    /// How it ended.
    pub status: ExitStatus,
    /// What it wrote to its standard output.
    pub stdout: String,
    /// What it wrote to its standard error.
    pub stderr: String,
}

impl Finished {
    /// Fails, with what it said, unless it ended with status 0.
    pub fn success(self) -> Result<Self> {
        if self.status.success() {
            return Ok(self);
        }
        bail!(
            "ended with {}\nstdout: {}\nstderr: {}",
            self.status,
            self.stdout,
            self.stderr
        );
    }
}

/// Kills and reaps the child when dropped.
#[derive(Debug)]
pub struct Guard(pub Child);

impl Guard {
    /// Waits at most `limit` for the end.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.0.try_wait().context("wait for the child")? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                bail!("still runs after {limit:?}");
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(None)) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
}

fn collect(from: impl Read + Send + 'static) -> JoinHandle<String> {
    thread::spawn(move || {
        let mut from = from;
        let mut bytes = Vec::new();
        let _ = from.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// Runs `command` to its end, at most `limit`.
pub fn run(command: &mut Command, limit: Duration) -> Result<Finished> {
    let line = format!("{command:?}");
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("run {line}"))?;
    let stdout = collect(child.stdout.take().context("standard output")?);
    let stderr = collect(child.stderr.take().context("standard error")?);
    let mut guard = Guard(child);
    let status = guard.wait(limit);
    drop(guard);
    // A grandchild may keep the pipes open for a moment: it ends by itself, as all of the
    // tests' programs do.
    let stdout = stdout.join().unwrap_or_default();
    let stderr = stderr.join().unwrap_or_default();
    let status =
        status.with_context(|| format!("run {line}\nstdout: {stdout}\nstderr: {stderr}"))?;
    Ok(Finished {
        status,
        stdout,
        stderr,
    })
}
