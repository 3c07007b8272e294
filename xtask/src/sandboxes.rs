//! Builds the programs that sandboxes need beside the agent.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::agent::{self, Profile};
use crate::program;
use crate::workspace::Workspace;

/// Parent of every sandbox.
pub(crate) const SPAWNER: &str = "hearth-spawner";
/// First process in a sandbox, where there are no libraries.
pub(crate) const INIT: &str = "hearth-init";

/// What a microVM runs where there is no kernel that it can boot.
pub(crate) const FLAT_GUEST: &str = "hearth-flat-guest";

/// Brings them up to date, beside the agent: there the spawner finds `hearth-init`.
pub(crate) fn build(workspace: &Workspace, profile: Profile) -> Result<()> {
    let agent = agent::path(workspace, profile);
    let folder = agent.parent().context("the agent is in no folder")?;
    let mut cargo = program::cargo();
    cargo
        .current_dir(workspace.root())
        .args(["build", "--package", SPAWNER, "--bin", SPAWNER])
        .arg("--target-dir")
        .arg(workspace.root().join("target"));
    if profile == Profile::Release {
        cargo.arg("--release");
    }
    program::run(&mut cargo)?;
    let init = build_static(workspace, INIT, profile)?;
    place(&init, &folder.join(INIT))?;
    place(&build_flat_guest(workspace)?, &folder.join(FLAT_GUEST))
}

const TARGET: &str = "x86_64-unknown-linux-gnu";

/// A program that runs where there is nothing but itself.
pub(crate) fn build_static(workspace: &Workspace, name: &str, profile: Profile) -> Result<PathBuf> {
    let folder = workspace.root().join("target/static");
    let mut cargo = program::cargo();
    cargo
        .current_dir(workspace.root())
        .args(["build", "--package", name, "--bin", name])
        // With an explicit target the flags are not those of build scripts and macros.
        .args(["--target", TARGET, "--target-dir"])
        .arg(&folder)
        .env("RUSTFLAGS", "-Ctarget-feature=+crt-static");
    let built = match profile {
        Profile::Dev => "debug",
        Profile::Release => {
            cargo.arg("--release");
            "release"
        }
    };
    program::run(&mut cargo)?;
    Ok(folder.join(TARGET).join(built).join(name))
}

/// A program that runs where there is no kernel either. It is always optimised: how long it
/// takes is compared with a restore of it.
fn build_flat_guest(workspace: &Workspace) -> Result<PathBuf> {
    /// Nothing begins before it or is linked to it, and it is where its addresses say.
    const FLAGS: &str = "-Cpanic=abort -Crelocation-model=static -Clink-arg=-no-pie \
         -Clink-arg=-static -Clink-arg=-nostdlib -Clink-arg=-nostartfiles";
    let folder = workspace.root().join("target/flat");
    let mut cargo = program::cargo();
    cargo
        .current_dir(workspace.root())
        .args(["build", "--release", "--package", FLAT_GUEST])
        .args(["--bin", FLAT_GUEST, "--features", "guest"])
        .args(["--target", TARGET, "--target-dir"])
        .arg(&folder)
        .env("RUSTFLAGS", FLAGS);
    program::run(&mut cargo)?;
    Ok(folder.join(TARGET).join("release").join(FLAT_GUEST))
}

/// Copies it by a new file, since the old one may be running.
fn place(from: &Path, to: &Path) -> Result<()> {
    let new = to.with_extension("new");
    std::fs::copy(from, &new)
        .and_then(|_| std::fs::rename(&new, to))
        .with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))
}
