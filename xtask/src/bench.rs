//! `cargo xtask bench`: every number that a document names comes from here.

mod agent;
mod boundaries;
mod cgroup;
mod cgroup_lock;
mod cold_start;
mod figure;
mod guest;
mod heal;
mod oom;
mod oom_recorder;
mod pairs;
mod parked;
mod peer;
mod policy;
mod programs;
mod sandbox;
mod spawn_loop;

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use clap::{Subcommand, ValueEnum};

use crate::program;
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
    /// The time that cgroups take on the path of a request: slots that are ready, against ones that
    /// are made or renamed.
    Cgroup {
        /// Only on this kernel, or only on an emulated one.
        #[arg(long, value_name = "WHERE")]
        only: Option<Place>,
    },
    /// How soon a function runs in a sandbox, how many start in a second, and what one takes.
    Sandbox {
        /// Only these figures.
        #[arg(long, value_name = "GROUP")]
        only: Option<sandbox::Group>,
    },
    /// What watching the locks of cgroups costs those who contend for them.
    CgroupLock {
        /// Only on this kernel, or only on an emulated one.
        #[arg(long, value_name = "WHERE")]
        only: Option<Place>,
    },
    /// How soon a function answers after a fault, beside a cold start of it.
    Heal {
        /// Only after this kind of fault.
        #[arg(long, value_name = "FAULT")]
        only: Option<heal::Fault>,
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
    /// How often requests wait for a start, and how much memory waits for requests, by the policy
    /// of the pools: simulated on made-up traces of several kinds.
    Policy {
        /// Traces of each kind, by seeds from 1000 on: none that the policy was chosen by.
        #[arg(long, default_value_t = 20)]
        seeds: usize,
        /// Apps of a trace [default: 50, and where they are asked rarely 100].
        #[arg(long, value_name = "N")]
        apps: Option<usize>,
    },
}

/// Where it is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Place {
    /// On this machine's kernel.
    Here,
    /// On Debian 12's kernel, emulated: every figure is marked indicative.
    Vm,
}

/// Sets up, builds what is measured as users run it (but for an `agent` that is named), measures,
/// and prints each figure when it is known.
pub(crate) fn run(
    workspace: &Workspace,
    what: What,
    agent: Option<PathBuf>,
    json: bool,
) -> Result<()> {
    let agent = match agent {
        None if what.has_agent() => Some(make_agent(workspace)?),
        agent => agent,
    };
    let named = std::env::var_os("HEARTH_BIN");
    let is_known = agent.is_none() || named.as_deref() == agent.as_deref().map(Path::as_os_str);
    if cfg!(debug_assertions) || !is_known {
        let mut again = Command::new(optimised(workspace)?);
        again.args(std::env::args_os().skip(1));
        if let Some(agent) = &agent {
            // What runs the oracle programs finds the agent by this, and it must be the same one.
            again.env("HEARTH_BIN", agent);
        }
        return Err(again.exec()).context("cannot start xtask again");
    }
    let mut printer = Printer::new(json);
    if let What::Cgroup { only } = what {
        return cgroup::measure(workspace, only, &mut printer);
    }
    if let What::Policy { seeds, apps } = what {
        return policy::measure(seeds, apps, &mut printer);
    }
    let agent = agent.context("there is no agent")?;
    match what {
        What::Cgroup { .. } | What::Policy { .. } => Ok(()),
        What::Sandbox { only } => sandbox::measure(only, &mut printer),
        What::Heal { only } => {
            crate::layers::build_rust(workspace)?;
            heal::measure(only, &mut printer)
        }
        What::ColdStart { only } => cold_start::measure(&agent, only, &mut printer),
        What::CgroupLock { only } => cgroup_lock::measure(workspace, &agent, only, &mut printer),
        What::OomRecorder => oom_recorder::measure(&agent, &mut printer),
        What::Oom { count, only } => oom::measure(workspace, &agent, count, only, &mut printer),
    }
}

impl What {
    /// Whether the agent takes part, or what is built beside it.
    fn has_agent(self) -> bool {
        !matches!(self, Self::Cgroup { .. } | Self::Policy { .. })
    }
}

/// This program as users would build it: part of what is measured is in it.
fn optimised(workspace: &Workspace) -> Result<PathBuf> {
    if !cfg!(debug_assertions) {
        return std::env::current_exe().context("where this program is");
    }
    setup::setup(workspace, Purpose::Test, false)?;
    let target = workspace.root().join("target");
    let mut cargo = program::cargo();
    cargo
        .current_dir(workspace.root())
        .args(["build", "--quiet", "--release", "--package", "xtask"])
        .arg("--target-dir")
        .arg(&target);
    program::run(&mut cargo)?;
    Ok(target.join("release/xtask"))
}

fn make_agent(workspace: &Workspace) -> Result<PathBuf> {
    setup::setup(workspace, Purpose::Test, false)?;
    crate::agent::build(workspace, crate::agent::Profile::Release)
}
