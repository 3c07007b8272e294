//! Functions of this node, where they are on.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Context as _;
use hearth_runtime::id::FunctionName;
use hearth_runtime::sandbox::Places;
use hearth_runtime::sandbox::process::Processes;
use tokio::net::UnixListener;

use crate::api::{router, socket};
use crate::config::Config;
use crate::functions::store::Store;
use crate::functions::{Definition, Manager};

/// What serves them, once nothing more is attached.
pub(super) struct Functions {
    listener: UnixListener,
    manager: Manager,
    named: BTreeMap<FunctionName, Definition>,
}

impl Functions {
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
        Ok(Some(Self {
            listener,
            manager: Manager::new(store, Arc::new(node), None),
            named: settings.named.clone(),
        }))
    }

    /// Serves them until the runtime ends.
    pub(super) fn serve(self) {
        let Self {
            listener,
            manager,
            named,
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
