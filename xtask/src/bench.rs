//! `cargo xtask bench`: every number that a document names comes from here.

mod agent;
mod boundaries;
mod cold_start;
mod figure;
mod pairs;
mod peer;
mod programs;
mod spawn_loop;

use std::os::unix::process::CommandExt as _;
use std::process::Command;

use anyhow::{Context as _, Result};
use clap::ValueEnum;

use crate::setup::{self, Purpose};
use crate::workspace::Workspace;

pub(crate) use cold_start::Group;
pub(crate) use figure::{Better, Figure, Printer};

/// A group of figures that are measured in one run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Name {
    /// What watching every start costs, and how exact its boundaries are.
    ColdStart,
}

/// Sets up, builds the agent as users run it, measures, and prints each figure when it is known.
pub(crate) fn run(
    workspace: &Workspace,
    name: Name,
    only: Option<Group>,
    json: bool,
) -> Result<()> {
    setup::setup(workspace, Purpose::Test, false)?;
    let agent = crate::agent::build(workspace, crate::agent::Profile::Release)?;
    if std::env::var_os("HEARTH_BIN").is_none_or(|named| named != *agent) {
        // What runs the oracle programs finds the agent by this, and it must be the same one.
        let error = Command::new(std::env::current_exe()?)
            .args(std::env::args_os().skip(1))
            .env("HEARTH_BIN", &agent)
            .exec();
        return Err(error).context("cannot start xtask again");
    }
    let mut printer = Printer::new(json);
    match name {
        Name::ColdStart => cold_start::measure(&agent, only, &mut printer),
    }
}
