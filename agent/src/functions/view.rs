//! Functions and sandboxes as they are shown.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use hearth_runtime::id::{FunctionName, SandboxId};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::timeout;
use utoipa::ToSchema;

use super::function::{About, Function};
use super::logs::Piece;
use super::manager::Manager;
use super::problem::Problem;
use super::store::Deployed;

/// How often who waits for logs sees whether the function is there.
const LOOK: Duration = Duration::from_secs(1);

/// One function.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FunctionView {
    /// The version that is in use.
    #[serde(flatten)]
    pub deployed: Deployed,
    /// Sandboxes that wait for work.
    pub idle: u32,
    /// Requests that are under way.
    pub busy: u32,
    /// Since the agent began: requests that reached it.
    pub invocations: u64,
    /// Of these, those that it answered; the others failed.
    pub answered: u64,
    /// Times that it was started.
    pub starts: u64,
    /// System calls that its code was refused, by name.
    pub refused_calls: BTreeMap<String, u64>,
}

/// One sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SandboxView {
    /// Its id.
    #[schema(value_type = String, example = "8476a536e9f441e8")]
    pub id: SandboxId,
    /// Its function.
    #[schema(value_type = String, example = "shop")]
    pub function: FunctionName,
    /// The version that runs in it.
    pub version: u32,
    /// What it does.
    pub state: SandboxState,
    /// Its slot.
    pub slot: String,
    /// Its first process, as the node sees it.
    pub pid: u32,
    /// When this agent got it, in milliseconds since 1970.
    pub since_unix_ms: u64,
}

/// What a sandbox does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum SandboxState {
    /// It waits for work.
    Idle,
    /// Its function starts, or is at work.
    Busy,
}

impl Manager {
    /// One function.
    pub fn show(&self, name: &FunctionName) -> Result<FunctionView, Problem> {
        let function = self.function(name)?;
        let state = function.state();
        let count = |length| u32::try_from(length).unwrap_or(u32::MAX);
        Ok(FunctionView {
            deployed: Deployed::clone(&state.deployed),
            idle: count(state.idle.len()),
            busy: count(state.busy.len()),
            invocations: state.counts.invocations,
            answered: state.counts.answered,
            starts: state.counts.starts,
            refused_calls: state.refused.clone(),
        })
    }

    /// All functions, by name.
    #[must_use]
    pub fn list(&self) -> Vec<FunctionView> {
        let names: Vec<FunctionName> = self
            .functions()
            .iter()
            .map(|function| function.state().deployed.name.clone())
            .collect();
        // One that was removed meanwhile is not there any more.
        let views = names.iter().filter_map(|name| self.show(name).ok());
        views.collect()
    }

    /// All sandboxes, by id.
    #[must_use]
    pub fn sandboxes(&self) -> Vec<SandboxView> {
        let mut all = Vec::new();
        for function in self.functions() {
            let state = function.state();
            let idle = state.idle.iter().map(|idle| &idle.about);
            let idle = idle.map(|about| (about, SandboxState::Idle));
            let busy = state.busy.values();
            let busy = busy.filter_map(|busy| busy.about.as_ref());
            let busy = busy.map(|about| (about, SandboxState::Busy));
            let views = idle.chain(busy);
            all.extend(views.map(|(about, doing)| view(&state.deployed.name, about, doing)));
        }
        all.sort_unstable_by_key(|sandbox| sandbox.id);
        all
    }
}

fn view(function: &FunctionName, about: &About, state: SandboxState) -> SandboxView {
    let since = about.began.duration_since(UNIX_EPOCH);
    SandboxView {
        id: about.id,
        function: function.clone(),
        version: about.version,
        state,
        slot: about.slot.clone(),
        pid: about.pid,
        since_unix_ms: u64::try_from(since.unwrap_or_default().as_millis()).unwrap_or(u64::MAX),
    }
}

/// Reads what a function wrote.
pub struct LogReader {
    function: Arc<Function>,
    last: watch::Receiver<u64>,
}

impl LogReader {
    /// What came after the piece `number`, some at a time. Where there is nothing more it waits,
    /// as long as the function is there, if that is wanted; else it is empty.
    pub async fn after(&mut self, number: u64, wait: bool) -> Vec<Piece> {
        loop {
            // What comes after this look is told by the next change.
            self.last.borrow_and_update();
            let pieces = self.function.logs.after(number);
            let is_removed = self.function.state().is_removed;
            if !pieces.is_empty() || !wait || is_removed {
                return pieces;
            }
            // A function that is removed writes nothing that would wake us.
            let _ = timeout(LOOK, self.last.changed()).await;
        }
    }
}

impl Manager {
    /// Reads what a function wrote.
    pub fn logs(&self, name: &FunctionName) -> Result<LogReader, Problem> {
        let function = self.function(name)?;
        let last = function.logs.watch();
        Ok(LogReader { function, last })
    }
}
