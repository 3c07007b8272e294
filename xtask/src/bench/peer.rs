//! What else one would use to see every exec: bpftrace.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, bail};

/// Prints every exec, as hearth's always-on set makes a record of it.
const SCRIPT: &str = "BEGIN { printf(\"attached\\n\"); } \
    tracepoint:sched:sched_process_exec { printf(\"%d %s %s\\n\", pid, comm, str(args->filename)); }";

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
                std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
                return Ok(bpftrace);
            }
        }
        bail!("bpftrace ended before its probes were attached")
    }
}
