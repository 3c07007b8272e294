//! `cargo xtask bench`: every number that a document names comes from here.

mod agent;
mod boundaries;
mod cgroup_lock;
mod cold_start;
mod figure;
mod guest;
mod oom;
mod oom_recorder;
mod pairs;
mod peer;
mod programs;
mod spawn_loop;

use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};
use clap::{Subcommand, ValueEnum};

use crate::setup::{self, Purpose};
use crate::workspace::Workspace;

use cold_start::Group;
pub(crate) use figure::{Better, Figure, Printer};

/// A group of figures that are measured in one run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Subcommand)]
pub(crate) enum What {
    /// What watching every start costs, and how exact its boundaries are.
    ColdStart {
        /// Only these figures.
        #[arg(long, value_name = "GROUP")]
        only: Option<Group>,
    },
    /// What watching the locks of cgroups costs those who contend for them.
    CgroupLock {
        /// Only on this kernel, or only on an emulated one.
        #[arg(long, value_name = "WHERE")]
        only: Option<Place>,
    },
    /// Whether every kill for want of memory is captured, how completely, and how soon.
    Oom {
        /// Kills on this kernel; in the VM it is a twentieth.
        #[arg(long, default_value_t = 1000)]
        count: u32,
        /// Only on this kernel, or only on an emulated one.
        #[arg(long, value_name = "WHERE")]
        only: Option<Place>,
    },
    /// What the flight recorder of OOM kills costs while nothing is near its limit, and while
    /// something is.
    OomRecorder,
}

/// Where it is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Place {
    /// On this machine's kernel.
    Here,
    /// On Debian 12's kernel, emulated: every figure is marked indicative.
    Vm,
}

/// Sets up, builds the agent as users run it (unless `agent` is one), measures, and prints each
/// figure when it is known.
pub(crate) fn run(
    workspace: &Workspace,
    what: What,
    agent: Option<PathBuf>,
    json: bool,
) -> Result<()> {
    let agent = match agent {
        Some(agent) => agent,
        None => make_agent(workspace)?,
    };
    if std::env::var_os("HEARTH_BIN").is_none_or(|named| named != *agent) {
        // What runs the oracle programs finds the agent by this, and it must be the same one.
        let error = Command::new(std::env::current_exe()?)
            .args(std::env::args_os().skip(1))
            .env("HEARTH_BIN", &agent)
            .exec();
        return Err(error).context("cannot start xtask again");
    }
    let mut printer = Printer::new(json);
    match what {
        What::ColdStart { only } => cold_start::measure(&agent, only, &mut printer),
        What::CgroupLock { only } => cgroup_lock::measure(workspace, &agent, only, &mut printer),
        What::OomRecorder => oom_recorder::measure(&agent, &mut printer),
        What::Oom { count, only } => oom::measure(workspace, &agent, count, only, &mut printer),
    }
}

fn make_agent(workspace: &Workspace) -> Result<PathBuf> {
    setup::setup(workspace, Purpose::Test, false)?;
    crate::agent::build(workspace, crate::agent::Profile::Release)
}
