//! `hearth snapshot`: the states that sandboxes are restored from.

mod table;
mod view;
mod which;

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use hearth_runtime::id::FunctionName;
use hearth_runtime::snapshot::{Bounds, Snapshot, Store};
use serde::Serialize;

use super::terminal::Terminal;
use super::trace::is_broken_pipe;
use crate::cli::ConfigFile;
use crate::config::Config;
use crate::observe::oom::sentence::size;
use view::View;
use which::Which;

/// What `hearth snapshot --help` says.
pub(super) const HELP: &str = "\
Show, verify and remove the snapshots that sandboxes are restored from.

A snapshot is the memory, the processor and the devices of a microVM, saved once and restored many
times. It never changes after it was published: its id is the digest of its manifest, which has the
digests of all else. Of each function, version and configuration the newest generations are kept
(snapshots.generations). A restore checks the manifest, the state and that the large files are the
very ones that were published; it has no time to read those. `verify` reads them.

An ID may be shortened as long as it is the only one. Run it as the user that runs hearth: a
snapshot holds all that the function had in memory, secrets too.";

/// The snapshots that sandboxes are restored from.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  hearth snapshot list                        what there is, and whether it can be restored
  hearth snapshot list --json | jq -r 'select(.status == \"quarantined\") | .id'
  hearth snapshot inspect 3f2a                where one can be restored, and why its restores failed
  hearth snapshot verify --all                read all of them; exits with 1 if one is damaged
  hearth snapshot verify --reseal 3f2a        one that was copied here: read it, and use it
  hearth snapshot gc --keep 1                 only the newest generation of each")]
pub struct Command {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List the snapshots, by function, the newest generation first.
    List {
        #[command(flatten)]
        place: Place,
        /// Only of this function.
        #[arg(long, value_name = "NAME")]
        function: Option<FunctionName>,
    },
    /// Show all that is known of one: what it is made of, where it can be restored, which restores
    /// failed.
    Inspect {
        #[command(flatten)]
        place: Place,
        /// Its id, as `list` shows it.
        #[arg(value_name = "ID")]
        id: Which,
    },
    /// Read all of a snapshot and compare it with its manifest; exit with 1 if something is wrong.
    Verify {
        #[command(flatten)]
        place: Place,
        /// Which ones.
        #[arg(value_name = "ID", required_unless_present = "all")]
        ids: Vec<Which>,
        /// All that there are.
        #[arg(long, conflicts_with = "ids")]
        all: bool,
        /// Where all of it is right, but its files are not those that were published on this node (they
        /// were copied, or the disk has another number since the last boot), use them from now on.
        #[arg(long)]
        reseal: bool,
    },
    /// Remove snapshots. One that a sandbox runs on stays, and is an error.
    Rm {
        #[command(flatten)]
        place: Place,
        /// Which ones.
        #[arg(value_name = "ID", required = true)]
        ids: Vec<Which>,
    },
    /// Remove old generations, those that are used up, and all in quarantine but the newest. One that a
    /// sandbox runs on stays.
    Gc {
        #[command(flatten)]
        place: Place,
        /// Generations to keep of each function, version and configuration [default:
        /// snapshots.generations of the configuration].
        #[arg(long, value_name = "N")]
        keep: Option<usize>,
    },
}

/// Where the snapshots are, and how they are shown.
#[derive(Debug, Args)]
struct Place {
    #[command(flatten)]
    file: ConfigFile,
    /// Directory of the snapshots [default: that of the configuration].
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Print one JSON object a line (docs/schema/snapshot.schema.json).
    #[arg(long)]
    json: bool,
}

impl Command {
    /// Does it.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        match self.action.run() {
            // Whoever read our output has seen enough.
            Err(error) if is_broken_pipe(&error) => Ok(ExitCode::SUCCESS),
            result => result,
        }
    }
}

impl Action {
    fn run(self) -> anyhow::Result<ExitCode> {
        match self {
            Self::List { place, function } => list(&place, function.as_ref()),
            Self::Inspect { place, id } => inspect(&place, &id),
            Self::Verify {
                place,
                ids,
                all,
                reseal,
            } => {
                let (store, _) = place.open()?;
                let mut snapshots = store.all()?;
                if !all {
                    snapshots = which::find_all(&snapshots, &ids)?;
                }
                verify(&place, &store, &snapshots, reseal)
            }
            Self::Rm { place, ids } => remove(&place, &ids),
            Self::Gc { place, keep } => collect(&place, keep),
        }
    }
}

impl Place {
    fn open(&self) -> anyhow::Result<(Store, Bounds)> {
        let config = Config::load(self.file.config.as_deref())?;
        let configured = || config.snapshots.dir(&config.functions.state_dir);
        let dir = self.dir.clone().unwrap_or_else(configured);
        // Asking is no reason to make it.
        if !dir.try_exists().unwrap_or(true) {
            anyhow::bail!(
                "there is no directory {}: it is made with the first snapshot. Name another one by \
                 --dir, or by snapshots.dir in the configuration",
                dir.display()
            );
        }
        let bounds = config.snapshots.bounds();
        let store = Store::open(&dir, bounds)
            .context("snapshots are for the user that runs hearth alone")?;
        Ok((store, bounds))
    }

    /// Prints each as JSON, or in words.
    fn print<T: Serialize>(&self, all: &[T], words: impl FnOnce() -> String) -> anyhow::Result<()> {
        let text = if self.json {
            let lines = all.iter().map(|one| Ok(serde_json::to_string(one)? + "\n"));
            lines.collect::<anyhow::Result<String>>()?
        } else {
            words()
        };
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes())?;
        Ok(out.flush()?)
    }
}

fn list(place: &Place, function: Option<&FunctionName>) -> anyhow::Result<ExitCode> {
    let (store, _) = place.open()?;
    let all = store.all()?.into_iter();
    let wanted = all.filter(|one| function.is_none_or(|name| one.key.function == *name));
    let views: Vec<View> = wanted.map(|one| View::of(&store, &one)).collect();
    place.print(&views, || table::list(&views, &Terminal::stdout()))?;
    Ok(ExitCode::SUCCESS)
}

fn inspect(place: &Place, id: &Which) -> anyhow::Result<ExitCode> {
    let (store, _) = place.open()?;
    let snapshot = id.find(&store.all()?)?;
    let view = View::whole(&store, &snapshot);
    place.print(std::slice::from_ref(&view), || {
        table::inspect(&view, &Terminal::stdout())
    })?;
    Ok(ExitCode::SUCCESS)
}

/// One snapshot, and what was done with it.
#[derive(Debug, Serialize)]
struct Line {
    id: String,
    done: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl Line {
    fn line(&self, terminal: &Terminal) -> String {
        let words = match (&self.error, self.bytes) {
            (Some(error), _) => format!("{}: {error}", self.done),
            (None, Some(bytes)) => format!("{}: {}", self.done, size(bytes)),
            (None, None) => self.done.to_owned(),
        };
        terminal.show(&format!(
            "{}  {words}",
            self.id.get(..12).unwrap_or_default()
        )) + "\n"
    }
}

/// Does something with each, says what came of it, and fails if one failed.
fn each(
    place: &Place,
    snapshots: &[Snapshot],
    mut act: impl FnMut(&Snapshot) -> Line,
) -> anyhow::Result<ExitCode> {
    let mut code = ExitCode::SUCCESS;
    for snapshot in snapshots {
        let done = act(snapshot);
        if done.error.is_some() {
            code = ExitCode::FAILURE;
        }
        let words = || done.line(&Terminal::stdout());
        place.print(std::slice::from_ref(&done), words)?;
    }
    Ok(code)
}

fn verify(
    place: &Place,
    store: &Store,
    snapshots: &[Snapshot],
    reseal: bool,
) -> anyhow::Result<ExitCode> {
    each(place, snapshots, |snapshot| {
        let id = snapshot.id.to_string();
        match store.verify(snapshot, reseal) {
            Ok(verified) => Line {
                id,
                done: if verified.is_resealed {
                    "resealed"
                } else {
                    "verified"
                },
                bytes: Some(verified.manifest.bytes()),
                error: None,
            },
            Err(error) => Line {
                id,
                done: "refused",
                bytes: None,
                error: Some(error.to_string()),
            },
        }
    })
}

fn remove(place: &Place, ids: &[Which]) -> anyhow::Result<ExitCode> {
    let (store, _) = place.open()?;
    let snapshots = which::find_all(&store.all()?, ids)?;
    each(place, &snapshots, |snapshot| {
        let id = snapshot.id.to_string();
        match store.remove(snapshot) {
            Ok(bytes) => Line {
                id,
                done: "removed",
                bytes: Some(bytes),
                error: None,
            },
            Err(error) => Line {
                id,
                done: "kept",
                bytes: None,
                error: Some(error.to_string()),
            },
        }
    })
}

fn collect(place: &Place, keep: Option<usize>) -> anyhow::Result<ExitCode> {
    let (store, bounds) = place.open()?;
    let collected = store.gc(keep.unwrap_or(bounds.generations), &|_| true)?;
    let done = |snapshot: &Snapshot, done| Line {
        id: snapshot.id.to_string(),
        done,
        bytes: None,
        error: None,
    };
    let removed = collected.removed.iter().map(|one| done(one, "removed"));
    let in_use = collected.in_use.iter().map(|one| done(one, "in use"));
    let all: Vec<Line> = removed.chain(in_use).collect();
    place.print(&all, || {
        let terminal = Terminal::stdout();
        let lines: String = all.iter().map(|one| one.line(&terminal)).collect();
        let (count, bytes) = (collected.removed.len(), size(collected.bytes));
        format!("{lines}{count} removed, {bytes}\n")
    })?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests;
