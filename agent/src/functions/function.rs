//! One function that is deployed, and what it did.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hearth_runtime::id::SandboxId;
use hearth_runtime::sandbox::backend::Told;
use tokio::sync::watch;

use super::logs::{Logs, Output};
use super::schedule::Said;
use super::store::Deployed;
use super::tally::Tally;

/// Names of refused calls that are counted; a kernel has some 400.
const MAX_REFUSED: usize = 512;

/// One function.
pub(super) struct Function {
    pub(super) logs: Logs,
    state: Mutex<State>,
    /// What its schedule said last.
    pub(super) said: Mutex<Option<Said>>,
    /// Counts the instances that are gone; for who waits until all are.
    pub(super) changed: watch::Sender<u64>,
}

/// What of it changes.
pub(super) struct State {
    pub(super) deployed: Arc<Deployed>,
    /// Its layers on this node.
    pub(super) layers: Vec<PathBuf>,
    /// Starts of it since the agent began, whatever came of them.
    pub(super) starts: u64,
    /// What else is counted of it.
    pub(super) tally: Tally,
    /// Calls that were refused to its code, by name.
    pub(super) refused: BTreeMap<String, u64>,
    /// How it failed last, in a sentence.
    pub(super) last_failure: Option<String>,
    /// It is being removed.
    pub(super) is_removed: bool,
}

impl Function {
    pub(super) fn new(deployed: Arc<Deployed>, layers: Vec<PathBuf>) -> Self {
        Self {
            logs: Logs::default(),
            state: Mutex::new(State {
                deployed,
                layers,
                starts: 0,
                tally: Tally::new(),
                refused: BTreeMap::new(),
                last_failure: None,
                is_removed: false,
            }),
            said: Mutex::default(),
            changed: watch::Sender::new(0),
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on this version; whether it is another one.
    pub(super) fn replace(&self, deployed: Arc<Deployed>, layers: Vec<PathBuf>) -> bool {
        let mut state = self.state();
        let is_other = state.deployed.version != deployed.version;
        state.deployed = deployed;
        state.layers = layers;
        is_other
    }

    /// Takes note of what a sandbox says.
    pub(super) fn hear(&self, sandbox: SandboxId, told: Told<'_>) {
        match told {
            Told::Log {
                stream,
                bytes,
                dropped,
            } => self.logs.push(sandbox, stream.into(), bytes, dropped),
            Told::Refused(calls) => {
                let mut state = self.state();
                for (name, times) in calls {
                    if state.refused.contains_key(name) || state.refused.len() < MAX_REFUSED {
                        *state.refused.entry(name.clone()).or_default() += times;
                    }
                }
                let names: Vec<&str> = calls.keys().map(String::as_str).collect();
                let text = format!(
                    "refused, as sandboxed code may not do this: {}\n",
                    names.join(", ")
                );
                let bytes = text.as_bytes();
                self.logs.push(sandbox, Output::Hearth, bytes, 0);
            }
        }
    }

    /// Tells who waits for it that an instance is gone.
    pub(super) fn tell_change(&self) {
        self.changed.send_modify(|count| *count += 1);
    }
}
