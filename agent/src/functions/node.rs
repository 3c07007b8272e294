//! What makes sandboxes on this node.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hearth_runtime::id::{FunctionName, SandboxId};
use hearth_runtime::sandbox::Resources;
use hearth_runtime::sandbox::ask::{Collapsed, Ended, Listed};
use hearth_runtime::sandbox::backend::{
    Abilities, Backend, Hello, Prepared, Sandbox, SandboxError,
};
use hearth_runtime::sandbox::process::Processes;
use hearth_runtime::sandbox::spawner::{Spawner, SpawnerError};

use super::manager::lock;
use super::weight;

/// How long nothing is heard of a node on which nothing ends.
const SILENCE: Duration = Duration::from_secs(30);

/// Makes sandboxes, and knows those that are there.
pub trait Node: Backend {
    /// All that are claimed, for who owns them: from here on nobody else does.
    fn list(&self) -> Result<Vec<Listed>, SandboxError>;

    /// Gathers the memory of one into huge pages; when this returns that is done.
    fn collapse(&self, sandbox: SandboxId) -> Result<Collapsed, SandboxError>;

    /// Tells `hear` of each sandbox that ends by itself from now on, and now and then of none, until
    /// it wants no more.
    fn watch(&self, hear: &mut dyn FnMut(Option<SandboxId>) -> bool) -> Result<(), SandboxError>;

    /// Memory that goes with one, in bytes, by its cgroup in the hierarchy that carries memory:
    /// that of its processes, what it wrote, and what the kernel keeps for it. Page cache of its
    /// layers stays for the next one.
    fn weigh(&self, cgroup: &str) -> Option<u64>;
}

impl Node for Processes {
    fn list(&self) -> Result<Vec<Listed>, SandboxError> {
        let listed = self.ask(Spawner::list)?;
        self.own()?;
        Ok(listed)
    }

    fn collapse(&self, sandbox: SandboxId) -> Result<Collapsed, SandboxError> {
        self.ask(|spawner| spawner.collapse(sandbox))
    }

    fn watch(&self, hear: &mut dyn FnMut(Option<SandboxId>) -> bool) -> Result<(), SandboxError> {
        let mut watch = self.watched()?;
        while hear(watch.next(SILENCE)?.map(|ended| ended.sandbox)) {}
        Ok(())
    }

    fn weigh(&self, cgroup: &str) -> Option<u64> {
        weight::of(cgroup)
    }
}

/// A node that is told again of ends that it did not hear of: `hearth-spawner` may be restarted at
/// any time, and goes on with every sandbox that it finds alive.
pub(super) struct Ends {
    node: Arc<dyn Node>,
    /// At most those that are alive: none is made by a spawner that does not answer.
    unheard: Mutex<BTreeSet<SandboxId>>,
}

impl Ends {
    pub(super) fn new(node: Arc<dyn Node>) -> Self {
        Self {
            node,
            unheard: Mutex::default(),
        }
    }

    /// Tells what was not heard.
    pub(super) fn tell_again(&self) {
        let unheard: Vec<SandboxId> = lock(&self.unheard).iter().copied().collect();
        for sandbox in unheard {
            // One after the other: where the first is not heard, no other is.
            match self.node.end(sandbox) {
                Err(error) if is_unheard(&error) => return,
                _ => lock(&self.unheard).remove(&sandbox),
            };
        }
    }
}

/// Whether the answer may be another one later.
const fn is_unheard(error: &SandboxError) -> bool {
    matches!(error, SandboxError::Spawner(error)
        if !matches!(error, SpawnerError::Refused { again: false, .. }))
}

impl Backend for Ends {
    fn abilities(&self) -> Abilities {
        self.node.abilities()
    }

    fn prepare(
        &self,
        function: &FunctionName,
        resources: Resources,
    ) -> Result<Prepared, SandboxError> {
        self.node.prepare(function, resources)
    }

    fn find(&self, listed: &Listed) -> Result<(Box<dyn Sandbox>, Hello), SandboxError> {
        self.node.find(listed)
    }

    fn end(&self, sandbox: SandboxId) -> Result<Ended, SandboxError> {
        let ended = self.node.end(sandbox);
        if ended.as_ref().is_err_and(is_unheard) {
            lock(&self.unheard).insert(sandbox);
        }
        ended
    }
}

impl Node for Ends {
    fn list(&self) -> Result<Vec<Listed>, SandboxError> {
        self.node.list()
    }

    fn collapse(&self, sandbox: SandboxId) -> Result<Collapsed, SandboxError> {
        self.node.collapse(sandbox)
    }

    fn watch(&self, hear: &mut dyn FnMut(Option<SandboxId>) -> bool) -> Result<(), SandboxError> {
        self.node.watch(hear)
    }

    fn weigh(&self, cgroup: &str) -> Option<u64> {
        self.node.weigh(cgroup)
    }
}
