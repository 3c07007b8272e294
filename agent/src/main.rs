//! The `hearth` command.

use std::io::{self, IsTerminal as _};
use std::process::ExitCode;

use clap::Parser as _;
use hearth::cli::Cli;
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    hearth::memory::keep_large_blocks_apart();
    let cli = Cli::parse();
    let filter = match EnvFilter::try_new(&cli.log) {
        Ok(filter) => filter,
        Err(error) => {
            eprintln!(
                "hearth: --log {:?} is not a filter ({error}); write \"info\"",
                cli.log
            );
            return ExitCode::from(2);
        }
    };
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(io::stderr().is_terminal())
        .with_writer(io::stderr)
        .init();
    match cli.run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("hearth: {error:#}");
            ExitCode::FAILURE
        }
    }
}
