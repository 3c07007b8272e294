//! Sharing the machine: most tests run beside each other, a few want it for themselves.

use std::fs::{File, OpenOptions};
use std::path::PathBuf;

use anyhow::{Context, Result};
use rustix::fs::{FlockOperation, flock};

/// The folder for what tests make and keep: the workspace's `target/`; in a VM, which has
/// none, that of temporary files.
#[must_use]
pub fn target() -> PathBuf {
    let cargos = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    let target =
        cargos.unwrap_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../target")));
    if target.is_dir() {
        target
    } else {
        std::env::temp_dir()
    }
}

/// A hold on the machine, until it is dropped.
#[derive(Debug)]
pub struct Hold {
    _file: File,
}

fn hold(operation: FlockOperation) -> Result<Hold> {
    let path = target().join("hearth-tests.lock");
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .with_context(|| format!("open {}", path.display()))?;
    rustix::io::retry_on_intr(|| flock(&file, operation)).context("lock the machine")?;
    Ok(Hold { _file: file })
}

/// Runs beside others that share.
pub fn shared() -> Result<Hold> {
    hold(FlockOperation::LockShared)
}

/// Runs alone among the tests: for shares of time and for counts of the whole machine.
pub fn quiet() -> Result<Hold> {
    hold(FlockOperation::LockExclusive)
}

/// Whether this machine is an emulated one, which is slow.
#[must_use]
pub fn is_emulated() -> bool {
    std::env::var_os("HEARTH_PROGRAMS").is_some()
}
