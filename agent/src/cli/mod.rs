//! The commands.

pub mod answer;
pub mod bar;
pub mod compare_locks;
pub mod config;
pub mod doctor;
pub mod figures;
pub mod functions;
pub mod heal;
mod interruption;
pub mod line;
pub mod locks;
pub mod oom;
pub mod percentiles;
pub mod perfetto;
pub mod picture;
pub mod run;
#[cfg(test)]
mod samples;
#[cfg(test)]
mod schema;
pub mod simulate;
pub mod snapshot;
pub mod terminal;
pub mod trace;
pub mod tracer;
mod waits;
pub mod waterfall;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// hearth makes cold starts visible: every phase of every start on this node, from the kernel.
#[derive(Debug, Parser)]
#[command(name = "hearth", version, about, max_term_width = 100)]
pub struct Cli {
    /// What of its own doings hearth logs to standard error, as a `tracing` filter.
    #[arg(
        long,
        global = true,
        value_name = "FILTER",
        default_value = "info",
        env = "HEARTH_LOG"
    )]
    pub log: String,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Observe every start on this node, and tell it.
    Run(run::Run),
    /// Run a command and show where the time of its cold start went, and why.
    #[command(long_about = trace::HELP)]
    Trace(trace::Trace),
    /// Show who waits for the kernel's cgroup locks, for how long, and because of whom.
    #[command(long_about = locks::HELP)]
    Locks(locks::Locks),
    /// Show what the kernel killed for want of memory, and what the victims were doing.
    Oom(oom::Oom),
    /// Show what was decided about functions that failed, and what came of it.
    Heal(heal::Heal),
    /// Show, verify and remove the snapshots that sandboxes are restored from.
    #[command(long_about = snapshot::HELP)]
    Snapshot(snapshot::Command),
    /// Deploy functions, invoke them, and see what they do.
    #[command(name = "fn")]
    Functions(functions::Functions),
    /// Show what each policy of the warm pools would do with a trace: cold starts against idle memory.
    #[command(long_about = simulate::HELP)]
    Simulate(simulate::Simulate),
    /// Show what this kernel lets hearth see, how exactly, and why not better.
    #[command(long_about = doctor::HELP)]
    Doctor(doctor::Doctor),
    /// Measure the holds of cgroup locks in every way that this kernel has, all at once, beside
    /// an exact and dear reference: how well does each of them measure here?
    #[command(hide = true)]
    CompareLocks(compare_locks::CompareLocks),
    /// Check or show the configuration.
    Config {
        /// What to do with it.
        #[command(subcommand)]
        action: config::Action,
    },
}

/// The option that names a configuration file, shared by the commands that read one.
#[derive(Debug, clap::Args)]
pub struct ConfigFile {
    /// Configuration file [default: /etc/hearth/hearth.toml, if there is one].
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

impl Cli {
    /// Does it; what the shell is told of the end.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        match self.command {
            Command::Run(run) => run.run(),
            Command::Config { action } => action.run(),
            Command::Trace(trace) => return trace.run(),
            Command::Functions(functions) => return functions.run(),
            Command::Heal(heal) => return heal.run(),
            Command::Snapshot(snapshot) => return snapshot.run(),
            Command::Locks(locks) => locks.run(),
            Command::CompareLocks(compare) => compare.run(),
            Command::Oom(oom) => oom.run(),
            Command::Simulate(simulate) => simulate.run(),
            Command::Doctor(doctor) => doctor.run(),
        }?;
        Ok(ExitCode::SUCCESS)
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
