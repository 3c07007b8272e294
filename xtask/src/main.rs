//! The commands that set up, build, run, test and measure hearth: `cargo xtask --help`.

mod agent;
mod bench;
mod bpf;
mod dashboards;
mod debian;
mod demo;
mod guest_image;
mod initramfs;
mod kernels;
mod layers;
mod libtest;
mod lint;
mod program;
mod report;
mod sandboxes;
mod setup;
mod tiers;
mod toolchain;
mod vm;
mod workspace;

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};

use crate::agent::Profile;
use crate::kernels::Kernel;
use crate::setup::Purpose;
use crate::tiers::Tier;
use crate::workspace::Workspace;

#[derive(Debug, Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    about,
    disable_help_subcommand = true
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Bring this machine to all that is needed; does nothing where all is there.
    Setup {
        /// Only say what is missing, and fail if anything is.
        #[arg(long)]
        check: bool,
        /// What to set up for.
        #[arg(long = "for", value_name = "PURPOSE", default_value = "test")]
        purpose: Purpose,
    },
    /// Build the kernel object, then the agent around it.
    Build {
        /// Optimise, as for users.
        #[arg(long)]
        release: bool,
    },
    /// Set up, build, and start the agent with its embedded defaults.
    Run {
        /// Arguments of `hearth run`.
        #[arg(last = true)]
        arguments: Vec<OsString>,
    },
    /// Set up, build, and tell what functions do under `hearth run`, on a node of its own: a burst, a
    /// leak, a crash loop. It fails where an act does not show what it should.
    Demo {
        /// Write what it says into the README instead of printing it.
        #[arg(long)]
        readme: bool,
    },
    /// Set up, build, and run the tests; then a table of what passed, failed and was skipped.
    Test {
        /// Only these tiers.
        #[arg(value_name = "TIER")]
        tiers: Vec<Tier>,
        /// A tier that may be unable to run on this machine without failing the whole.
        #[arg(
            long,
            value_name = "TIER",
            value_delimiter = ',',
            env = "HEARTH_ALLOW_MISSING"
        )]
        allow_missing: Vec<Tier>,
    },
    /// Boot a kernel in an emulated VM and run a command there.
    ///
    /// The agent is there as `hearth`, busybox as the shell. What the command leaves in /out
    /// arrives in target/vm/out-KERNEL, the kernel's messages in target/vm/console-KERNEL.log. The
    /// exit status is the command's.
    Vm {
        /// Which of Debian's kernels.
        #[arg(long, default_value = "6.1")]
        kernel: Kernel,
        /// A file or folder to take along; an executable brings its libraries.
        #[arg(long = "file", value_name = "HOST:GUEST", value_parser = vm::parse_file)]
        files: Vec<(PathBuf, PathBuf)>,
        /// With a `/dev/kvm` of its own, emulated.
        #[arg(long)]
        microvms: bool,
        /// Seconds after which the VM is ended.
        #[arg(long, default_value_t = 300)]
        timeout: u64,
        /// The command, by its path in the VM.
        #[arg(last = true, default_values = ["/usr/bin/hearth", "doctor"])]
        command: Vec<String>,
    },
    /// Measure, side by side with running without and with a peer.
    ///
    /// `ratio` is ours : peer, the mean over pairs that were measured in turn; `half_width` is
    /// half of its 95 % confidence interval.
    Bench {
        /// What to measure.
        #[command(subcommand)]
        what: bench::What,
        /// Measure this agent instead of building one.
        #[arg(long, global = true, value_name = "HEARTH")]
        agent: Option<PathBuf>,
        /// Print one JSON object a figure instead of a table.
        #[arg(long, global = true)]
        json: bool,
    },
    /// Builds what the functions of tests and benches run on, into `target/functions`.
    Layers,
    /// Write the Grafana dashboards from their definitions.
    Dashboards {
        /// Write nothing; fail where a file is not what its definition says.
        #[arg(long)]
        check: bool,
    },
}

fn main() -> ExitCode {
    // Not `Result` from main: that would print a backtrace where one is switched on.
    dispatch(Arguments::parse().command).unwrap_or_else(|error| {
        eprintln!("xtask: {error:#}");
        ExitCode::FAILURE
    })
}

fn dispatch(command: Command) -> Result<ExitCode> {
    let workspace = Workspace::locate();
    match command {
        Command::Setup { check, purpose } => setup::setup(&workspace, purpose, check)?,
        Command::Build { release } => {
            let profile = if release {
                Profile::Release
            } else {
                Profile::Dev
            };
            println!("{}", agent::build(&workspace, profile)?.display());
        }
        Command::Run { arguments } => return run(&workspace, &arguments),
        Command::Demo { readme } => demo::run(&workspace, readme)?,
        Command::Test {
            tiers,
            allow_missing,
        } => {
            if !tiers::run(&workspace, &tiers, &allow_missing)? {
                return Ok(ExitCode::FAILURE);
            }
        }
        Command::Vm {
            kernel,
            mut files,
            microvms,
            timeout,
            command,
        } => {
            setup::setup(&workspace, Purpose::Vm, false)?;
            files.push((agent::build(&workspace, Profile::Dev)?, vm::AGENT.into()));
            let deadline = Duration::from_secs(timeout);
            let job = vm::Job {
                kernel,
                command,
                environment: Vec::new(),
                files,
                runs_microvms: microvms,
                deadline,
            };
            let code = vm::run(&workspace, &job, &mut vm::to_terminal)?;
            return Ok(u8::try_from(code).map_or(ExitCode::FAILURE, ExitCode::from));
        }
        Command::Bench { what, agent, json } => bench::run(&workspace, what, agent, json)?,
        Command::Layers => {
            setup::setup(&workspace, Purpose::Vm, false)?;
            layers::build(&workspace)?;
        }
        Command::Dashboards { check } => dashboards::run(&workspace, check)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// The agent takes this process's place, so that signals and the exit status are its own.
fn run(workspace: &Workspace, arguments: &[OsString]) -> Result<ExitCode> {
    setup::setup(workspace, Purpose::Run, false)?;
    let agent = agent::build(workspace, Profile::Release)?;
    let error = program::clean(&agent).arg("run").args(arguments).exec();
    Err(error).with_context(|| format!("cannot start {}", agent.display()))
}
