//! `hearth simulate`: what each policy of the warm pools would do with a trace.

mod table;
#[cfg(test)]
mod tests;
mod work;

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use hearth_runtime::pool::policy::Choice;
use hearth_runtime::pool::simulate::{
    Clairvoyant, Format, Generator, Options, Reading, Report, Synthetic, Trace, plot,
};

use super::terminal::Terminal;
use super::trace::{check_writable, is_broken_pipe};
use crate::config::{Period, Size};

/// What `--help` says of it.
pub(super) const HELP: &str = "\
Show what each policy of the warm pools would do with a trace: cold starts against idle memory.

A pool that keeps more sandboxes ready has fewer cold starts and more memory that waits. Which
policy makes the best of it depends on who asks for what when, and that is what a trace says. The
policies are the very ones that `hearth run` uses, driven by the same code, in simulated time:
a day of thousands of requests takes less than a second.

A trace is a file (a day of the Azure Functions trace of 2019, that of 2021, or what `hearth fn
record` wrote of this node), or made up from a seed as published figures have it. For each policy
it prints the share of requests that waited for a start, overall and by function; the memory that
waited for requests; and the regret: how many fewer cold starts one with the same idle memory has
that knows the future, but starts nothing ahead of a request. docs/simulate.md says more.";

/// Show what each policy of the warm pools would do with a trace.
#[derive(Debug, Args)]
#[command(
    group = clap::ArgGroup::new("what").required(true).args(["trace", "synthetic"]),
    after_help = "\
Examples:
  hearth simulate --synthetic 1                   every policy on a made-up day
  hearth simulate --synthetic 1 --generator bursts --policy fixed:300 hybrid
  hearth simulate --synthetic 1 --plot front.svg  the same as a picture, with more parameters
  hearth simulate --trace invocations_per_function_md.anon.d01.csv --share 0.01
                                                  a hundredth of the apps of a day of 2019; the
                                                  durations and memory are read from beside it
  hearth simulate --trace node.jsonl --memory 16GiB --json | jq '{policy, cold_start_share}'
                                                  what was recorded here, on a node of 16 GiB"
)]
pub struct Simulate {
    /// Read the trace from this file.
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// Make the trace up from this seed: the same seed, the same trace.
    #[arg(long, value_name = "SEED")]
    synthetic: Option<u64>,
    /// Simulate these policies [default: each that there is].
    #[arg(long, value_name = "NAME", num_args = 1.., conflicts_with = "all")]
    policy: Vec<Choice>,
    /// Simulate each policy that there is, with several parameters; --plot does, too.
    #[arg(long)]
    all: bool,
    /// Memory that all sandboxes may have together, such as 16GiB [default: as much as they take].
    #[arg(long, value_name = "SIZE")]
    memory: Option<Size>,
    /// What a made-up trace is like: published, bursts, diurnal, timers, slow-starts or sparse.
    #[arg(
        long,
        value_name = "KIND",
        default_value = "published",
        conflicts_with = "trace"
    )]
    generator: Generator,
    /// Apps of a made-up trace, each of three functions on average [default: 200; sparse: 400].
    #[arg(long, value_name = "N", conflicts_with = "trace", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    apps: Option<u32>,
    /// Length of a made-up trace.
    #[arg(
        long,
        value_name = "TIME",
        default_value = "24h",
        conflicts_with = "trace"
    )]
    length: Period,
    /// Format of the file: azure-2019, azure-2021 or recording [default: by its first line].
    #[arg(long, conflicts_with = "synthetic")]
    format: Option<Format>,
    /// Take this share of the file's apps, each with all of its functions: always the same ones.
    #[arg(long, value_name = "SHARE", default_value = "1", conflicts_with = "synthetic", value_parser = share)]
    share: f64,
    /// How long a sandbox takes to start, where the file does not tell.
    #[arg(
        long,
        value_name = "TIME",
        default_value = "500ms",
        conflicts_with = "synthetic"
    )]
    start: Period,
    /// Print one JSON object a policy (docs/schema/simulate.schema.json).
    #[arg(long)]
    json: bool,
    /// Also write a picture to this file (SVG): cold starts against idle memory.
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
}

fn share(text: &str) -> Result<f64, String> {
    let share = text.parse().ok();
    share
        .filter(|share| *share > 0.0 && *share <= 1.0)
        .ok_or_else(|| "write a number above 0 and up to 1, such as 0.01".to_owned())
}

impl Simulate {
    /// Does it.
    pub fn run(&self) -> anyhow::Result<()> {
        match self.act() {
            // Whoever read our output has seen enough.
            Err(error) if is_broken_pipe(&error) => Ok(()),
            result => result,
        }
    }

    fn act(&self) -> anyhow::Result<()> {
        if let Some(file) = &self.plot {
            check_writable(file)?;
        }
        let (trace, title) = self.trace()?;
        anyhow::ensure!(
            !trace.arrivals().is_empty(),
            "there are no requests in {title}: take a larger --share, or another file"
        );
        let clairvoyant = Clairvoyant::of(&trace);
        let policies = self.policies();
        let options: Vec<Options> = policies
            .iter()
            .map(|policy| Options {
                memory_bytes: self.memory.map(|size| size.0),
                ..Options::new(*policy)
            })
            .collect();
        let reports = work::simulate(&trace, &options, &clairvoyant)?;
        if let Some(file) = &self.plot {
            let picture = plot::plot(&reports, &clairvoyant, &title);
            fs::write(file, picture).with_context(|| format!("cannot write {}", file.display()))?;
        }
        let text = if self.json {
            let lines: Result<Vec<String>, _> = reports.iter().map(serde_json::to_string).collect();
            lines?.join("\n") + "\n"
        } else {
            table::table(&title, &trace, &reports, &Terminal::stdout())
        };
        let mut stdout = io::stdout().lock();
        stdout.write_all(text.as_bytes())?;
        Ok(stdout.flush()?)
    }

    /// The trace, and what it is called.
    fn trace(&self) -> anyhow::Result<(Trace, String)> {
        if let Some(file) = &self.trace {
            return self.read(file);
        }
        let seed = self.synthetic.unwrap_or_default();
        let kind = self.generator.with(seed);
        let synthetic = Synthetic {
            apps: self.apps.map_or(kind.apps, |apps| apps as usize),
            length: self.length.0,
            ..kind
        };
        let trace = synthetic
            .trace()
            .context("cannot make this trace up: ask for fewer --apps or a shorter --length")?;
        let kind = self.generator.word();
        Ok((trace, format!("a made-up trace ({kind}, seed {seed})")))
    }

    fn read(&self, file: &Path) -> anyhow::Result<(Trace, String)> {
        let reading = Reading {
            share: self.share,
            start: self.start.0,
            ..Reading::default()
        };
        let (trace, missing) = reading.read(file, self.format)?;
        for what in missing {
            eprintln!("hearth: {what}");
        }
        let name = file.file_name().unwrap_or_default();
        Ok((trace, name.to_string_lossy().into_owned()))
    }

    fn policies(&self) -> Vec<Choice> {
        if !self.policy.is_empty() {
            return self.policy.clone();
        }
        let mut policies = Choice::ALL.to_vec();
        if self.all || self.plot.is_some() {
            policies.extend(plot::curves());
        }
        let ours = Choice::default();
        if !policies.contains(&ours) {
            policies.push(ours);
        }
        policies
    }
}

/// A length of a trace, as one says it.
fn hours(length: Duration) -> String {
    let minutes = length.as_secs() / 60;
    match (minutes / 60, minutes % 60) {
        (0, minutes) => format!("{minutes} min"),
        (hours, 0) => format!("{hours} h"),
        (hours, minutes) => format!("{hours} h {minutes} min"),
    }
}

/// Whether that is what is used where nothing else is asked for.
fn is_default(report: &Report) -> bool {
    report.policy == Choice::default()
}
