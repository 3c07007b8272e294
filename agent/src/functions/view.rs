//! Functions and sandboxes as they are shown.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use hearth_runtime::id::{FunctionName, SandboxId};
use hearth_runtime::pool::{Moment, Pool, Retired, Served};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::timeout;
use utoipa::ToSchema;

use super::function::Function;
use super::logs::Piece;
use super::manager::Manager;
use super::pool::Look;
use super::problem::Problem;
use super::store::Deployed;
use super::tally::Tally;
use crate::observe::pool::Counter;

/// How often who waits for logs sees whether the function is there.
const LOOK: Duration = Duration::from_secs(1);

/// One function.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FunctionView {
    /// The version that is in use.
    #[serde(flatten)]
    pub deployed: Deployed,
    /// Its sandboxes, and who waits for one.
    #[serde(default)]
    pub pool: PoolView,
    /// Since the agent began: requests that reached it.
    pub invocations: u64,
    /// Of these, those that it answered; the others failed.
    pub answered: u64,
    /// Times that it was started.
    pub starts: u64,
    /// System calls that its code was refused, by name.
    pub refused_calls: BTreeMap<String, u64>,
}

/// The pool of a function.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PoolView {
    /// Sandboxes that there should be, at work or not.
    pub target: u32,
    /// Those that wait for work.
    pub ready: u32,
    /// Those that start.
    pub starting: u32,
    /// Those that are at work.
    pub busy: u32,
    /// Requests that wait for one.
    pub waiting: u32,
    /// Since the agent began: requests that found one ready.
    pub hits: u64,
    /// Those that waited for one that was at work.
    pub queued: u64,
    /// Those that waited for one to start.
    pub misses: u64,
    /// Those that were refused.
    pub refused: u64,
    /// Sandboxes that were ended while they were idle, as somebody needed their memory more.
    pub evicted: u64,
    /// Memory that one of them takes, in bytes: its limit, until it was weighed.
    pub memory_bytes: u64,
    /// Where it keeps failing: how long it is left alone from now on, in milliseconds.
    pub back_off_ms: u64,
    /// How often it has failed in a row.
    pub failures: u32,
}

impl PoolView {
    fn of(pool: &Pool, now: Moment) -> Self {
        let size = pool.size();
        let (back_off, failures) = pool.back_off(now);
        Self {
            target: size.target,
            ready: size.ready,
            starting: size.starting,
            busy: size.busy,
            waiting: size.waiting,
            memory_bytes: pool.weight(),
            back_off_ms: u64::try_from(back_off.as_millis()).unwrap_or(u64::MAX),
            failures,
            ..Self::default()
        }
    }

    fn counted(self, tally: &Tally) -> Self {
        let served = |how: Served| tally.of(Counter::Served(how.word()));
        Self {
            hits: served(Served::Hit),
            queued: served(Served::Queued),
            misses: served(Served::Miss),
            refused: tally.refused(),
            evicted: tally.of(Counter::Retired(Retired::Evicted.word())),
            ..self
        }
    }
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
    /// Its function starts.
    Starting,
    /// It waits for work.
    Idle,
    /// It is at work.
    Busy,
}

impl Manager {
    /// One function.
    pub fn show(&self, name: &FunctionName) -> Result<FunctionView, Problem> {
        let function = self.function(name)?;
        // There is none before sandboxes of an agent before this one were looked for.
        let pool = self.0.pools.of(name, PoolView::of).unwrap_or_default();
        let state = function.state();
        let answered = state.tally.of(Counter::Answered);
        Ok(FunctionView {
            deployed: Deployed::clone(&state.deployed),
            pool: pool.counted(&state.tally),
            invocations: answered + state.tally.of(Counter::Failed),
            answered,
            starts: state.starts,
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
        let mut all = self.0.pools.look(|live, look| {
            let about = live.about()?;
            let since = about.began.duration_since(UNIX_EPOCH).unwrap_or_default();
            Some(SandboxView {
                id: about.id,
                function: live.deployed.name.clone(),
                version: live.deployed.version,
                state: match look {
                    Look::Starting => SandboxState::Starting,
                    Look::Idle => SandboxState::Idle,
                    Look::Busy => SandboxState::Busy,
                },
                slot: about.slot.clone(),
                pid: about.pid,
                since_unix_ms: u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
            })
        });
        all.sort_unstable_by_key(|sandbox| sandbox.id);
        all
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
