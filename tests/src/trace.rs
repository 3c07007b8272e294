//! `hearth trace`, as a user runs it.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::child::{self, Finished};
use crate::machine;
use crate::start::Start;

/// What a run may take where every instruction is emulated.
const PATIENCE: Duration = Duration::from_mins(4);

/// The agent's binary: `HEARTH_BIN`, or the newer one of what cargo built.
pub fn hearth() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("HEARTH_BIN") {
        let path = PathBuf::from(path);
        ensure!(
            path.is_file(),
            "HEARTH_BIN names {}, which is no file",
            path.display()
        );
        return Ok(path);
    }
    let built = ["debug", "release"].map(|profile| machine::target().join(profile).join("hearth"));
    let age = |path: &PathBuf| {
        std::fs::metadata(path)
            .and_then(|file| file.modified())
            .ok()
    };
    built
        .into_iter()
        .filter(|path| path.is_file())
        .max_by_key(age)
        .context("there is no `hearth`: run `cargo xtask build`, or name it in HEARTH_BIN")
}

/// One run of `hearth trace`.
#[derive(Debug)]
pub struct Traced {
    /// The starts that it told.
    pub starts: Vec<Start>,
    /// Lines of standard output that are no start.
    pub other: Vec<String>,
    /// How it ended and what it said.
    pub finished: Finished,
}

impl Traced {
    /// The only start, sound.
    pub fn only(&self) -> Result<&Start> {
        let told = &self.finished;
        ensure!(
            self.starts.len() == 1,
            "{} starts instead of one; {}\nstdout: {}\nstderr: {}",
            self.starts.len(),
            told.status,
            told.stdout,
            told.stderr
        );
        self.starts[0].is_sound()?;
        Ok(&self.starts[0])
    }
}

/// Runs `hearth trace --json --keep OPTIONS -- COMMAND`: the command ends by itself, after it
/// has reported, however slow the machine is.
pub fn trace(options: &[&str], command: &[String]) -> Result<Traced> {
    let mut line = Command::new(hearth()?);
    line.args(["trace", "--json", "--keep"])
        .args(options)
        .arg("--")
        .args(command);
    let finished = child::run(&mut line, PATIENCE)?;
    Ok(read(finished))
}

/// Runs `hearth` with these arguments, whatever comes of it.
pub fn run(arguments: &[&str]) -> Result<Finished> {
    child::run(
        Command::new(hearth()?).args(arguments),
        Duration::from_mins(1),
    )
}

fn read(finished: Finished) -> Traced {
    let mut starts = Vec::new();
    let mut other = Vec::new();
    for line in finished.stdout.lines() {
        match serde_json::from_str(line) {
            Ok(start) => starts.push(start),
            Err(_) => other.push(line.to_owned()),
        }
    }
    Traced {
        starts,
        other,
        finished,
    }
}
