//! `cargo xtask demo`: builds what the story is about, and has it told.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::agent::{self, Profile};
use crate::setup::{self, Purpose};
use crate::workspace::Workspace;
use crate::{layers, program};

/// Around what it says, in the README.
const MARKS: (&str, &str) = (
    "<!-- Written by `cargo xtask demo --readme`. -->\n```text\n",
    "```\n<!-- End. -->\n",
);

/// Tells it in this process's place, so that signals and the exit status are its own; or writes what
/// it says into the README.
pub(crate) fn run(workspace: &Workspace, readme: bool) -> Result<()> {
    let mut teller = build(workspace)?;
    if !readme {
        let error = teller.exec();
        return Err(error).with_context(|| format!("cannot start {}", program::line(&teller)));
    }
    let said = program::output(&mut teller)?;
    let path = workspace.root().join("README.md");
    let text = fs::read_to_string(&path)?;
    let (begin, end) = MARKS;
    let parts = text.split_once(begin);
    let parts = parts.and_then(|(before, rest)| Some((before, rest.split_once(end)?.1)));
    let (before, after) = parts.with_context(|| format!("{} lacks {begin}", path.display()))?;
    fs::write(
        &path,
        [before, begin, said.trim_start(), end, after].concat(),
    )?;
    Ok(())
}

fn build(workspace: &Workspace) -> Result<Command> {
    ensure!(
        rustix::process::geteuid().is_root(),
        "making sandboxes takes root"
    );
    setup::setup(workspace, Purpose::Run, false)?;
    let agent = agent::build(workspace, Profile::Release)?;
    layers::build_rust(workspace)?;
    let target = workspace.root().join("target");
    let mut cargo = program::cargo();
    cargo
        .current_dir(workspace.root())
        .args(["build", "--quiet", "--package", "hearth-tests"])
        .args(["--bin", "hearth-demo", "--target-dir"])
        .arg(&target);
    program::run(&mut cargo)?;
    let mut teller = program::clean(target.join("debug/hearth-demo"));
    teller
        .env("HEARTH_BIN", agent)
        .env("HEARTH_FUNCTIONS", layers::folder(workspace));
    Ok(teller)
}
