//! Runs the one command that the VM is for.

use std::ffi::OsString;
use std::fs;
use std::io::Read;
use std::os::unix::ffi::OsStringExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use hearth_vm_init::{COMMAND, ENVIRONMENT, Frame};
use rustix::io::retry_on_intr;
use rustix::process::{Pid, WaitOptions, wait};

use crate::{Channel, send};

/// How long output is still taken after the command's end, from what it left running.
const GRACE: Duration = Duration::from_secs(1);

/// Size of one read of the command's output.
const CHUNK: usize = 8 * 1024;

/// Runs the command with its output sent to the host; its exit status.
pub(crate) fn run(channel: &Channel) -> Result<i32> {
    let mut child = spawn()?;
    let stdout = child
        .stdout
        .take()
        .context("the command has no standard output")?;
    let stderr = child
        .stderr
        .take()
        .context("the command has no standard error")?;
    let (done, ends) = mpsc::channel();
    forward(stdout, channel, Frame::Stdout, done.clone());
    forward(stderr, channel, Frame::Stderr, done);
    let code = reap(&child)?;
    // What the command left running may hold a pipe open for ever: it ends with the machine.
    for _ in 0..2 {
        let _ = ends.recv_timeout(GRACE);
    }
    Ok(code)
}

/// Sends all that comes out of a pipe, from a thread of its own that says when it is done.
fn forward(
    mut pipe: impl Read + Send + 'static,
    channel: &Channel,
    frame: fn(Vec<u8>) -> Frame,
    done: mpsc::Sender<()>,
) {
    let channel = Arc::clone(channel);
    thread::spawn(move || {
        let mut buffer = [0; CHUNK];
        while let Ok(read @ 1..) = pipe.read(&mut buffer) {
            if send(&channel, &frame(buffer[..read].to_vec())).is_err() {
                break;
            }
        }
        let _ = done.send(());
    });
}

/// Waits for the command, and meanwhile for every orphan, as the first process must.
fn reap(child: &Child) -> Result<i32> {
    let command = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    loop {
        let Some((pid, status)) =
            retry_on_intr(|| wait(WaitOptions::empty())).context("cannot wait for the command")?
        else {
            continue;
        };
        if Some(pid) == command {
            let by_signal = status.terminating_signal().map(|signal| 128 + signal);
            return status
                .exit_status()
                .or(by_signal)
                .context("the command ended in no known way");
        }
    }
}

fn spawn() -> Result<Child> {
    let mut words = strings(COMMAND)?.into_iter();
    let program = words.next().context("the command is empty")?;
    let mut command = Command::new(&program);
    command
        .args(words)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command.env_clear().current_dir("/");
    for pair in strings(ENVIRONMENT)? {
        let pair = pair
            .into_string()
            .ok()
            .context("an environment that is not UTF-8")?;
        let (name, value) = pair.split_once('=').context("an environment without `=`")?;
        command.env(name, value);
    }
    command
        .spawn()
        .with_context(|| format!("cannot start {}", program.display()))
}

/// The NUL-ended strings of a file.
fn strings(path: &str) -> Result<Vec<OsString>> {
    let bytes = fs::read(path).with_context(|| format!("cannot read {path}"))?;
    let ended = bytes.strip_suffix(&[0]).unwrap_or(&bytes);
    if ended.is_empty() {
        return Ok(Vec::new());
    }
    Ok(ended
        .split(|&byte| byte == 0)
        .map(|word| OsString::from_vec(word.to_vec()))
        .collect())
}
