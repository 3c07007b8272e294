//! Our side: the spawner claims, `hearth-init` starts.

use std::path::Path;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;
use hearth_runtime::id::SandboxId;
use hearth_runtime::sandbox::Resources;
use hearth_runtime::sandbox::backend::{Backend as _, Prepared, Sandbox};
use hearth_runtime::sandbox::process::Processes;
use hearth_runtime::sandbox::start::{HugePages, Network, Program, Root, Start};
use hearth_tests::node::{Node, PATIENCE};

use super::side::{Running, Side};
use super::{MEMORY, MILLICORES, PIDS, WRITABLE};

/// Questions to the spawner at once: it takes 64 connections. Who waits for one is timed.
const ASKING: usize = 48;

/// Sandboxes of one node.
pub(super) struct Ours {
    processes: Processes,
    start: Start,
    asking: Mutex<usize>,
    free: Condvar,
}

/// One that runs.
pub(super) struct Started {
    id: SandboxId,
    /// Who runs functions stays connected.
    _sandbox: Box<dyn Sandbox>,
    pub(super) was_parked: bool,
    /// Until it was ours.
    pub(super) claimed: Duration,
    /// What `hearth-init` made meanwhile, and when it had: microseconds since it was told to start.
    pub(super) steps: Vec<(String, u64)>,
    /// Until the function asked for work.
    pub(super) took: Duration,
}

impl Running for Started {
    fn took(&self) -> Duration {
        self.took
    }
}

impl Ours {
    /// With this layer below.
    pub(super) fn new(node: &Node, layer: &Path) -> Result<Self> {
        Ok(Self {
            processes: node.sandboxes(),
            start: Start {
                function: "bench".parse()?,
                version: 1,
                root: Root {
                    layers: vec![layer.to_path_buf()],
                    writable_bytes: WRITABLE,
                },
                program: Program {
                    command: vec!["/function".to_owned()],
                    environment: Vec::new(),
                    directory: "/".into(),
                },
                syscalls: Vec::new(),
                open_files: 256,
                memory_bytes: Some(MEMORY),
                huge_pages: HugePages::Node,
                network: Network::Loopback,
            },
            asking: Mutex::new(0),
            free: Condvar::new(),
        })
    }

    /// Asks the spawner when there is a connection for it.
    fn ask<T>(&self, ask: impl FnOnce(&Processes) -> T) -> T {
        let asking = self.asking.lock().unwrap_or_else(PoisonError::into_inner);
        let is_full = |asking: &mut usize| *asking >= ASKING;
        let waited = self.free.wait_while(asking, is_full);
        *waited.unwrap_or_else(PoisonError::into_inner) += 1;
        let answer = ask(&self.processes);
        *self.asking.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        self.free.notify_one();
        answer
    }
}

impl Side for Ours {
    type Running = Started;

    fn start(&self) -> Result<Started> {
        let resources = Resources {
            memory_bytes: Some(MEMORY),
            cpu_millicores: Some(MILLICORES),
            pids: Some(PIDS),
            ..Resources::default()
        };
        let begin = Instant::now();
        let function = &self.start.function;
        let Prepared {
            mut sandbox,
            claimed: told,
        } = self.ask(|processes| processes.prepare(function, resources))?;
        let claimed = begin.elapsed();
        let inside = sandbox.start(&self.start, PATIENCE, &mut |_| {})?;
        Ok(Started {
            took: begin.elapsed(),
            steps: inside.steps,
            id: told.sandbox,
            was_parked: told.was_parked,
            claimed,
            _sandbox: sandbox,
        })
    }

    fn end(&self, running: Started) -> Result<()> {
        self.ask(|processes| processes.end(running.id))?;
        Ok(())
    }
}
