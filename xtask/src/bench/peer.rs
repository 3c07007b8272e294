//! What else one would use: bpftrace to see every exec, bcc's klockstat for the locks.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::debian::{self, HOST_SUITE};
use crate::workspace::Workspace;

/// Prints every exec, as hearth's always-on set makes a record of it.
const SCRIPT: &str = "BEGIN { printf(\"attached\\n\"); } \
    tracepoint:sched:sched_process_exec { printf(\"%d %s %s\\n\", pid, comm, str(args->filename)); }";

/// How `/proc/PID/syscall` begins for who sleeps, on x86-64.
const CLOCK_NANOSLEEP: &str = "230 ";

/// How long klockstat may take to attach its probes.
const PATIENCE: Duration = Duration::from_mins(1);

/// A running bpftrace; killed when dropped.
pub(crate) struct Bpftrace {
    child: Child,
}

impl Drop for Bpftrace {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Bpftrace {
    /// Starts it and waits until its probes are attached.
    pub(crate) fn start() -> Result<Self> {
        // It takes tracefs, in a mount namespace of its own so that the machine's stays as it is.
        let mut child = Command::new("unshare")
            .args(["--mount", "sh", "-c"])
            .arg(
                "[ -e /sys/kernel/tracing/events ] || mount -t tracefs hearth /sys/kernel/tracing; \
                 exec bpftrace -B line -e \"$1\"",
            )
            .args(["sh", SCRIPT])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("start bpftrace")?;
        let stdout = child
            .stdout
            .take()
            .context("bpftrace has no standard output")?;
        let bpftrace = Self { child };
        let mut lines = BufReader::new(stdout).lines();
        for line in lines.by_ref() {
            if line? == "attached" {
                // Somebody has to read on, else it would wait for its reader.
                thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
                return Ok(bpftrace);
            }
        }
        bail!("bpftrace ended before its probes were attached")
    }
}

/// A running klockstat of `libbpf-tools`; killed when dropped.
///
/// It counts waits and holds of every mutex and semaphore, by fentry, and has no way to watch a
/// few of them only: its filters come after its probes.
pub(crate) struct Klockstat {
    child: Child,
}

impl Drop for Klockstat {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Klockstat {
    /// Where it is in the VM.
    pub(crate) const IN_VM: &str = "/usr/sbin/klockstat";

    /// Debian's, unpacked beside the system.
    pub(crate) fn fetch(workspace: &Workspace) -> Result<PathBuf> {
        let folder = workspace.vm().join("libbpf-tools");
        let klockstat = folder.join("usr/sbin/klockstat");
        if !klockstat.exists() {
            debian::download(workspace, HOST_SUITE, "libbpf-tools", &folder)?;
        }
        Ok(klockstat)
    }

    /// Starts it and waits until its probes are attached.
    pub(crate) fn start() -> Result<Self> {
        let child = Command::new(Self::IN_VM)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .context("start klockstat")?;
        let mut klockstat = Self { child };
        let call = format!("/proc/{}/syscall", klockstat.child.id());
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some(status) = klockstat.child.try_wait()? {
                bail!("klockstat ended with {status} before its probes were attached");
            }
            // It keeps back what it says until its end, and sleeps once it has nothing to attach.
            let said = fs::read_to_string(&call).with_context(|| format!("read {call}"))?;
            if said.starts_with(CLOCK_NANOSLEEP) {
                return Ok(klockstat);
            }
            thread::sleep(Duration::from_millis(20));
        }
        bail!("klockstat had not attached its probes after {PATIENCE:?}")
    }
}
