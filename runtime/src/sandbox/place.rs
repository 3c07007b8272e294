//! Where the sockets and directories of a node's sandboxes are.

use std::path::{Path, PathBuf};

use crate::id::SandboxId;

/// Below one directory, mode 0700, of the user that the spawner runs as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places(PathBuf);

impl Default for Places {
    /// `/run/hearth`, where nothing outlives a boot.
    fn default() -> Self {
        Self("/run/hearth".into())
    }
}

impl Places {
    /// Below another directory, for a second spawner on the node.
    #[must_use]
    pub fn below(directory: impl Into<PathBuf>) -> Self {
        Self(directory.into())
    }

    /// The directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.0
    }

    /// Where the spawner listens.
    #[must_use]
    pub fn spawner(&self) -> PathBuf {
        self.0.join("spawner.sock")
    }

    /// The lock of who uses the spawner: one at a time.
    #[must_use]
    pub fn owner(&self) -> PathBuf {
        self.0.join("owner.lock")
    }

    /// The directory of the spawner's journal.
    #[must_use]
    pub fn journal(&self) -> PathBuf {
        self.0.join("spawner")
    }

    /// The directory of the sockets of sandboxes.
    #[must_use]
    pub fn sandboxes(&self) -> PathBuf {
        self.0.join("sandbox")
    }

    /// Where the `hearth-init` of a sandbox listens.
    #[must_use]
    pub fn sandbox(&self, sandbox: SandboxId) -> PathBuf {
        self.sandboxes().join(format!("{sandbox}.sock"))
    }
}
