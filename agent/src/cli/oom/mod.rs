//! `hearth oom`: what the kernel killed for want of memory, and what the victims were doing.

mod list;
mod page;
mod report;
mod threads;
mod view;

use std::io::{self, Write as _};
use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, Subcommand};

use super::terminal::Terminal;
use super::trace::is_broken_pipe;
use crate::cli::ConfigFile;
use crate::config::Config;
use crate::observe::identity::boot_id;
use crate::observe::oom::CaptureId;
use crate::observe::oom::store::{Captures, StoreError};
use view::View;

/// Show what the kernel killed for want of memory, and what the victims were doing.
///
/// When a cgroup or the node runs out of memory, the kernel picks a process and kills it, and with
/// it goes everything that would tell why. `hearth run` makes a capture of each kill: who was
/// killed and who asked for memory, which limit was hit, what the memory was made of, what grew
/// before, and where each thread of the victim was. Captures are files in oom.dir (by default
/// /var/lib/hearth/oom), bounded in number and bytes: the oldest go first.
///
/// Read them as the user that runs hearth: they hold command lines (masked by default) and, where
/// oom.stack_bytes is set, memory.
#[derive(Debug, Args)]
#[expect(
    clippy::doc_markdown,
    reason = "--help shows these texts, where Markdown means nothing"
)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  hearth oom list                    the captures, newest first
  hearth oom show last               the newest one: who, why, what grew, what would have been
                                     enough, and the stacks
  hearth oom show last --json | jq '.enough'
  hearth oom list --json | jq -r 'select(.constraint == \"cgroup\") | .cgroup' | sort | uniq -c
                                     which cgroups hit their limits, and how often"
)]
pub struct Oom {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List the captures, newest first.
    List {
        #[command(flatten)]
        place: Place,
        /// How many at most.
        #[arg(long, value_name = "N", default_value_t = 100)]
        last: usize,
        /// Print one JSON object a line (docs/schema/oom-list.schema.json).
        #[arg(long)]
        json: bool,
    },
    /// Show one capture: who was killed and why, what grew, what limit would have been enough, and
    /// where each thread was.
    ///
    /// Stacks are named when they are shown, from the very files that were mapped; one that is
    /// gone or was replaced leaves offsets in it, which `addr2line -e FILE OFFSET` names on a
    /// machine that has it. Threads that stood at the same place are shown together. What is
    /// missing says why, at the end.
    Show {
        /// A name that `hearth oom list` shows, or `last`.
        #[arg(value_name = "ID")]
        id: Which,
        #[command(flatten)]
        place: Place,
        /// Show every thread, and all registers.
        #[arg(long)]
        all: bool,
        /// Print one JSON object (docs/schema/oom.schema.json).
        #[arg(long)]
        json: bool,
    },
}

/// Where the captures are.
#[derive(Debug, Args)]
struct Place {
    #[command(flatten)]
    file: ConfigFile,
    /// Directory of the captures [default: oom.dir of the configuration].
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

impl Place {
    fn open(&self) -> anyhow::Result<Captures> {
        let dir = match &self.dir {
            Some(dir) => dir.clone(),
            None => Config::load(self.file.config.as_deref())?.oom.dir,
        };
        match Captures::open(&dir) {
            Ok(captures) => Ok(captures),
            Err(StoreError::Io { error, .. }) if error.kind() == io::ErrorKind::NotFound => {
                anyhow::bail!(
                    "there is no directory {}: `hearth run` makes it at the first start with the \
                     signal oom",
                    dir.display()
                )
            }
            Err(error) => Err(error).context("captures are for the user that runs hearth alone"),
        }
    }
}

/// Which capture.
#[derive(Clone, Debug)]
enum Which {
    Last,
    Named(CaptureId),
}

impl std::str::FromStr for Which {
    type Err = crate::observe::oom::model::NotAnId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "last" {
            return Ok(Self::Last);
        }
        text.parse().map(Self::Named)
    }
}

impl Oom {
    /// Does it.
    pub fn run(self) -> anyhow::Result<()> {
        match self.act() {
            // Whoever read our output has seen enough.
            Err(error) if is_broken_pipe(&error) => Ok(()),
            result => result,
        }
    }

    fn act(self) -> anyhow::Result<()> {
        let terminal = Terminal::stdout();
        let text = match self.action {
            Action::List { place, last, json } => {
                list::list(&place.open()?, last, json, &terminal)?
            }
            Action::Show {
                id,
                place,
                all,
                json,
            } => {
                let captures = place.open()?;
                let id = match id {
                    Which::Named(id) => id,
                    Which::Last => captures
                        .ids()?
                        .pop_front()
                        .context("there are no captures yet: nothing was killed")?,
                };
                let capture = captures.read(&id)?;
                let view = View::of(&capture, &boot_id());
                if json {
                    serde_json::to_string(&view)? + "\n"
                } else {
                    report::report(&view, all, &terminal)
                }
            }
        };
        let mut stdout = io::stdout().lock();
        stdout.write_all(text.as_bytes())?;
        Ok(stdout.flush()?)
    }
}

#[cfg(test)]
mod tests;
