//! Functions of this node, where they are on.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;

use anyhow::Context as _;
use hearth_runtime::id::FunctionName;
use hearth_runtime::sandbox::Places;
use hearth_runtime::sandbox::ask::Claimed;
use hearth_runtime::sandbox::process::Processes;
use tokio::net::UnixListener;
use tokio::sync::mpsc;

use super::healing::{Healings, healings};
use crate::api::{router, socket};
use crate::config::Config;
use crate::functions::definition::MAX_TIMEOUT as MAX_START;
use crate::functions::starts::Watcher;
use crate::functions::store::Store;
use crate::functions::{Definition, Manager};
use crate::heal::Healer;
use crate::kernel::table::Signal;
use crate::observe::cold_start::Claim;
use crate::observe::healing::Healing;
use crate::time::{Boottime, Nanos};

/// What serves them, once nothing more is attached.
pub(super) struct Functions {
    listener: UnixListener,
    manager: Manager,
    named: BTreeMap<FunctionName, Definition>,
    starting: Option<Starting>,
    healings: Option<Healings>,
}

/// What waits to be seen.
const WAITING: usize = 256;
/// How long a start waits for that: it goes on unseen rather than late.
const PATIENCE: Duration = Duration::from_millis(20);

/// What is seen of the starts of functions.
pub(super) enum Seen {
    /// A sandbox was claimed; nothing is started in it before `_done` is dropped.
    Claimed {
        /// What will open the start.
        claim: Claim,
        /// Who waits for that.
        _done: SyncSender<()>,
    },
    /// The function in the one that was claimed then asked for work.
    Ready {
        /// When it was claimed.
        claimed: Boottime,
        /// When it was ready.
        at: Boottime,
    },
}

/// Starts as they come.
pub(super) type Starting = mpsc::Receiver<Seen>;

/// Tells the daemon's loop.
struct Tell(mpsc::Sender<Seen>);

impl Watcher for Tell {
    fn claimed(&self, function: &FunctionName, claimed: &Claimed, at: Boottime) {
        let (done, wait) = sync_channel(1);
        let claim = Claim {
            init: claimed.init.pid,
            at,
            function: function.as_str().into(),
            deadline: Nanos(MAX_START.as_nanos().try_into().unwrap_or(u64::MAX)),
        };
        if self
            .0
            .try_send(Seen::Claimed { claim, _done: done })
            .is_ok()
        {
            let _ = wait.recv_timeout(PATIENCE);
        }
    }

    fn ready(&self, claimed: Boottime, at: Boottime) {
        // One that is not told ends when it is given up.
        let _ = self.0.try_send(Seen::Ready { claimed, at });
    }
}

/// Who decides about functions that fail; what it finds wrong with the audit is said.
fn healer(
    config: &Config,
    tell: impl Fn(Healing) + Send + Sync + 'static,
) -> anyhow::Result<Healer> {
    let directory = config.heal.audit_dir(&config.functions.state_dir);
    let (healer, opened) = Healer::open(&directory, config.heal.limits(), tell)
        .context("what is decided about functions cannot be written down")?;
    for found in opened.found {
        tracing::error!("{}: {found}", directory.display());
    }
    if opened.torn_bytes > 0 {
        tracing::warn!(
            "{}: the last line was torn; its {} bytes are put aside",
            directory.display(),
            opened.torn_bytes
        );
    }
    Ok(healer)
}

impl Functions {
    /// What is to be seen of starts, where they are watched.
    pub(super) fn starting(&mut self) -> Option<Starting> {
        self.starting.take()
    }

    /// What is done about functions that fail.
    pub(super) fn healings(&mut self) -> Option<Healings> {
        self.healings.take()
    }

    /// Where it is told how functions started.
    pub(super) fn manager(&self) -> Manager {
        self.manager.clone()
    }

    /// Finds out what can be wrong with it; no thread is started yet, as it would keep what this one
    /// may do.
    pub(super) async fn prepare(config: &Config) -> anyhow::Result<Option<Self>> {
        let settings = &config.functions;
        if !settings.are_on() {
            return Ok(None);
        }
        let store = Store::open(&settings.state_dir).context("functions cannot be kept")?;
        let listener = socket::listen(&settings.api_socket).await?;
        let node = Processes::new(Places::below(&settings.spawner_dir));
        tracing::info!("functions at {}", settings.api_socket.display());
        let mut starting = None;
        let mut watcher: Option<Arc<dyn Watcher>> = None;
        if config.signals.contains(&Signal::ColdStart) {
            let (tell, seen) = mpsc::channel(WAITING);
            watcher = Some(Arc::new(Tell(tell)));
            starting = Some(seen);
        }
        let (tell, healings) = healings();
        let healer = healer(config, tell)?;
        let manager = Manager::new(store, Arc::new(node), watcher).healed_by(healer);
        manager.set_memory(settings.memory_budget.map(|size| size.0));
        Ok(Some(Self {
            listener,
            manager,
            healings: Some(healings),
            starting,
            named: settings.named.clone(),
        }))
    }

    /// Serves them until the runtime ends.
    pub(super) fn serve(self) {
        let Self {
            listener,
            manager,
            named,
            starting: _,
            healings: _,
        } = self;
        tokio::spawn(socket::serve(listener, router(manager.clone())));
        tokio::spawn({
            let manager = manager.clone();
            async move { manager.look_after().await }
        });
        tokio::spawn(async move {
            for (name, definition) in named {
                match manager.deploy(name.clone(), definition).await {
                    Ok(deployed) => {
                        tracing::info!("function {name}: version {}", deployed.version);
                    }
                    Err(problem) => tracing::error!("functions.{name} is not deployed: {problem}"),
                }
            }
        });
    }
}
