//! What makes sandboxes on this node.

use hearth_runtime::sandbox::ask::Listed;
use hearth_runtime::sandbox::backend::{Backend, SandboxError};
use hearth_runtime::sandbox::process::Processes;
use hearth_runtime::sandbox::spawner::Spawner;

/// Makes sandboxes, and knows those that are there.
pub trait Node: Backend {
    /// All that are claimed.
    fn list(&self) -> Result<Vec<Listed>, SandboxError>;
}

impl Node for Processes {
    fn list(&self) -> Result<Vec<Listed>, SandboxError> {
        self.ask(Spawner::list)
    }
}
