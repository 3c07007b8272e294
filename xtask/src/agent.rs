//! Builds the agent around the kernel object, and what stands beside it.

use std::path::PathBuf;

use anyhow::Result;

use crate::workspace::Workspace;
use crate::{bpf, program, sandboxes};

/// How much the compiler optimises, at what cost in build time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    /// Quick to build.
    Dev,
    /// What users run.
    Release,
}

/// Where the agent of a profile is built.
pub(crate) fn path(workspace: &Workspace, profile: Profile) -> PathBuf {
    let folder = match profile {
        Profile::Dev => "debug",
        Profile::Release => "release",
    };
    workspace.root().join("target").join(folder).join("hearth")
}

/// Brings the kernel object, the agent and the programs of sandboxes up to date and returns the
/// agent's path.
pub(crate) fn build(workspace: &Workspace, profile: Profile) -> Result<PathBuf> {
    bpf::build(workspace)?;
    let mut cargo = program::cargo();
    cargo
        .current_dir(workspace.root())
        .args([
            "build",
            "--package",
            "hearth",
            "--bin",
            "hearth",
            "--target-dir",
        ])
        .arg(workspace.root().join("target"));
    if profile == Profile::Release {
        cargo.arg("--release");
    }
    program::run(&mut cargo)?;
    sandboxes::build(workspace, profile)?;
    Ok(path(workspace, profile))
}
