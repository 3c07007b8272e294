//! Who starts functions.

use std::time::Duration;

use anyhow::Result;

/// One way to start the function in a sandbox of its own.
pub(super) trait Side: Sync {
    /// What is started.
    type Running: Running;

    /// Starts it; it has asked for its first request.
    fn start(&self) -> Result<Self::Running>;

    /// Ends it, and takes away all of it.
    fn end(&self, running: Self::Running) -> Result<()>;
}

/// A function that runs.
pub(super) trait Running {
    /// How long its start took.
    fn took(&self) -> Duration;
}
