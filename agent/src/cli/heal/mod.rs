//! `hearth heal`: what was decided about functions that failed, and what came of it.

mod table;

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use hearth_runtime::id::FunctionName;
use serde::Serialize;

use super::terminal::Terminal;
use super::trace::is_broken_pipe;
use crate::cli::ConfigFile;
use crate::config::Config;
use crate::heal::audit::{Files, Found, Line, Link};

/// How often a file is looked at that is followed.
const LOOK: Duration = Duration::from_millis(250);

/// Show what was decided about functions that failed, and what came of it.
///
/// `hearth run` decides about each fault of a function's sandbox: that it was killed for want of
/// memory, crashed, hung or stopped to answer. Each decision is a line of the audit before anything
/// of it is done, each outcome is another one. The lines are chained, so that one that was changed,
/// taken out or put in shows. Whether anything is done is said of each function: heal = "observe"
/// (nothing), "dry-run" or "act".
#[derive(Debug, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  hearth heal log --last 20               the last 20 lines
  hearth heal log --function shop --follow
  hearth heal log --verify                whether the audit is as it was written; exits with 1 if not
  hearth heal log --json | jq 'select(.entry == \"outcome\" and .outcome == \"failed\")'"
)]
pub struct Heal {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Print the audit, the oldest line first.
    Log(Log),
}

#[derive(Debug, Args)]
struct Log {
    #[command(flatten)]
    file: ConfigFile,
    /// Directory of the audit [default: that of the configuration].
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Only of this function.
    #[arg(long, value_name = "NAME")]
    function: Option<FunctionName>,
    /// How many lines at most, the newest.
    #[arg(long, value_name = "N", default_value_t = 1000)]
    last: usize,
    /// Print one JSON object a line, as the audit has it (docs/schema/heal-log.schema.json).
    #[arg(long)]
    json: bool,
    /// Go on with what is written from now on.
    #[arg(long)]
    follow: bool,
    /// Say whether the audit is as it was written, and nothing else; exit with 1 if it is not.
    #[arg(long, conflicts_with_all = ["follow", "json", "function"])]
    verify: bool,
}

impl Heal {
    /// Does it.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let Action::Log(log) = self.action;
        match log.run() {
            // Whoever read our output has seen enough.
            Err(error) if is_broken_pipe(&error) => Ok(ExitCode::SUCCESS),
            result => result,
        }
    }
}

impl Log {
    fn run(self) -> anyhow::Result<ExitCode> {
        let files = self.open()?;
        if self.verify {
            return verify(&files);
        }
        let terminal = Terminal::stdout();
        let (mut after, mut is_first) = (0, true);
        let mut told: Vec<Found> = Vec::new();
        loop {
            let stamp = files.stamp();
            let (lines, found) = files.read().context("the audit cannot be read")?;
            for one in found {
                if !told.contains(&one) {
                    eprintln!("hearth: {}: {}", one.file, one.what);
                    told.push(one);
                }
            }
            let new = lines.iter().filter(|(line, _)| line.seq > after);
            let wanted = new.filter(|(line, _)| self.wants(line));
            let mut wanted: Vec<&(Line, Link)> = wanted.collect();
            if is_first {
                wanted.drain(..wanted.len().saturating_sub(self.last));
            }
            let mut text = String::new();
            if is_first && !self.json {
                text += &table::heading(&terminal);
            }
            for (line, link) in wanted {
                text += &if self.json {
                    json(line, *link)?
                } else {
                    table::row(line, &terminal)
                };
            }
            let mut out = io::stdout().lock();
            out.write_all(text.as_bytes())?;
            out.flush()?;
            after = lines.last().map_or(after, |(line, _)| line.seq);
            is_first = false;
            if !self.follow {
                return Ok(ExitCode::SUCCESS);
            }
            while files.stamp() == stamp {
                thread::sleep(LOOK);
            }
        }
    }

    fn open(&self) -> anyhow::Result<Files> {
        let dir = if let Some(dir) = &self.dir {
            dir.clone()
        } else {
            let config = Config::load(self.file.config.as_deref())?;
            config.heal.audit_dir(&config.functions.state_dir)
        };
        Files::open(&dir).with_context(|| {
            format!(
                "there is no audit in {}: `hearth run` begins it where functions are on, for the \
                 user that runs it alone",
                dir.display()
            )
        })
    }

    fn wants(&self, line: &Line) -> bool {
        let function = self.function.as_ref();
        function.is_none_or(|function| line.entry.function() == Some(function))
    }
}

/// A line as the audit has it.
fn json(line: &Line, sum: Link) -> anyhow::Result<String> {
    #[derive(Serialize)]
    struct Chained<'a> {
        chain: String,
        #[serde(flatten)]
        line: &'a Line,
    }
    let chain = sum.to_string();
    Ok(serde_json::to_string(&Chained { chain, line })? + "\n")
}

fn verify(files: &Files) -> anyhow::Result<ExitCode> {
    let (lines, found) = files.read().context("the audit cannot be read")?;
    let mut out = io::stdout().lock();
    for Found { file, what } in &found {
        writeln!(out, "{file}: {what}")?;
    }
    if !found.is_empty() {
        return Ok(ExitCode::FAILURE);
    }
    match (lines.first(), lines.last()) {
        (Some((first, _)), Some((last, link))) => writeln!(
            out,
            "lines {} to {} are as they were written; the chain up to the last is {link}",
            first.seq, last.seq
        )?,
        _ => writeln!(out, "nothing was written yet")?,
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests;
