//! `hearth trace`: where did the time of one program's start go, and why?

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, ExitStatus};

use anyhow::Context as _;
use clap::Args;

use super::line::line;
use super::percentiles::{median, table};
use super::perfetto;
use super::picture::picture;
use super::terminal::Terminal;
use super::tracer::{Outcome, Traced, Tracer};
use super::waterfall::waterfall;
use crate::config::{Endpoint, Otlp, Period, Protocol};
use crate::export::{Collector, TraceContext, WallClock, record, resource};
use crate::observe::cold_start::{ColdStart, ReadyRule};
use crate::time::Nanos;

/// Starts sent to a collector in one request.
const BATCH: usize = 64;

/// What `--help` says of it.
pub(super) const HELP: &str = "\
Run a command and show where the time of its cold start went, and why.

Shows each phase of the start on a time axis, what it did meanwhile (running, queued for a
CPU, waiting for io, blocked by something else), and the answer in words. With --repeat it
shows percentiles, and the median start.

The command needs no change. It is ready at its first TCP listen, else when it exits;
--ready says otherwise. A command that is ready and still runs is ended with SIGTERM, unless
--keep is given. Exits as the command did (128 and the signal's number where one ended it), or
with 1 where it was not ready in time. Needs root, or CAP_BPF and CAP_PERFMON; `hearth doctor`
says what is missing.";

/// Run a command and show where the time of its cold start went, and why.
#[derive(Debug, Args)]
#[expect(
    clippy::doc_markdown,
    reason = "--help shows these texts, where Markdown means nothing"
)]
#[command(after_help = "\
Examples:
  hearth trace -- python3 app.py                 until it listens, or exits
  hearth trace --ready accept -- node server.js  until it first waits for work
  hearth trace --repeat 20 --cold -- java -jar app.jar
                                                 percentiles, nothing in the page cache
  hearth trace --svg start.svg -- ./app          a picture for a report
  hearth trace --perfetto start.json -- ./app    open it at https://ui.perfetto.dev
  hearth trace --json -- ./app | jq .total_ns    for scripts")]
pub struct Trace {
    /// What ends the start: listen, accept, notify, next, exit, file:/PATH, uprobe:/PATH:SYMBOL,
    /// or several with commas, of which the first to happen counts.
    #[arg(long, value_name = "RULE", default_value = "listen,exit")]
    ready: ReadyRule,
    /// Start the command this many times, one after the other.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    repeat: u32,
    /// Drop the page cache before each start: what a node's first start pays. Slows the whole
    /// node down for a while.
    #[arg(long)]
    cold: bool,
    /// Give up waiting for ready after this long.
    #[arg(long, value_name = "TIME", default_value = "5min")]
    deadline: Period,
    /// Let a command that is ready run on, and wait until it ends.
    #[arg(long)]
    keep: bool,
    /// Print one JSON object a start, and nothing else, to standard output; the command's own
    /// standard output goes to standard error. docs/schema/cold-start.schema.json describes it.
    #[arg(long)]
    json: bool,
    /// Also write all starts to this file, for https://ui.perfetto.dev: each as a process, one
    /// under the other.
    #[arg(long, value_name = "FILE")]
    perfetto: Option<PathBuf>,
    /// Also write the waterfall (of several starts the median one's) to this file, as a picture.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Also send traces and log records of the starts to this collector: gRPC, or HTTP where the
    /// port is 4318 or there is a path. The command's own spans join by TRACEPARENT.
    #[arg(long, value_name = "URL", value_parser = |url: &str| Endpoint::try_from(url.to_owned()))]
    otlp: Option<Endpoint>,
    /// The command and its arguments.
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<OsString>,
}

impl Trace {
    /// Does it.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        for file in [&self.perfetto, &self.svg].into_iter().flatten() {
            check_writable(file)?;
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        match runtime.block_on(self.trace()) {
            // Whoever read our output has seen enough.
            Err(error) if is_broken_pipe(&error) => Ok(ExitCode::SUCCESS),
            result => result,
        }
    }

    async fn trace(&self) -> anyhow::Result<ExitCode> {
        let mut tracer = Tracer::new(Traced {
            command: self.command.clone(),
            ready: self.ready.clone(),
            deadline: Nanos(u64::try_from(self.deadline.0.as_nanos()).unwrap_or(u64::MAX)),
            keep: self.keep,
            cold: self.cold,
            own_stdout: self.json,
            joins: self.otlp.is_some(),
        })?;
        let terminal = Terminal::stdout();
        let clock = WallClock::new();
        let (mut starts, mut contexts) = (Vec::new(), Vec::new());
        let mut failure = None;
        let mut code = 0;
        for _ in 0..self.repeat {
            let Outcome {
                start,
                status,
                context,
            } = match tracer.start().await {
                Ok(outcome) => outcome,
                // What was seen so far is not thrown away for the one that failed.
                Err(error) => {
                    failure = Some(error);
                    break;
                }
            };
            if self.json {
                print(&(serde_json::to_string(&start)? + "\n"))?;
            } else if self.repeat > 1 {
                print(&(line(&start, clock.unix_ns(start.begin), &terminal) + "\n"))?;
            }
            if code == 0 {
                code = code_of(&start, status);
            }
            starts.push(start);
            contexts.push(context);
        }
        if !self.json {
            print(&self.told(&starts, tracer.notes(), &terminal))?;
        }
        self.write_files(&starts)?;
        // Sending comes last, so that it disturbs no start.
        if let Some(endpoint) = &self.otlp {
            send(endpoint, &starts, &contexts, &clock).await?;
        }
        failure.map_or(Ok(code.into()), |error| Err(error.into()))
    }

    /// What a person reads of the starts. `why` tells why a boundary has no probe.
    fn told(&self, starts: &[ColdStart], why: &[String], terminal: &Terminal) -> String {
        let title = self.title();
        match starts {
            [] => String::new(),
            [start] => waterfall(start, &title, why, terminal),
            starts => {
                let mut text = format!("\n{}", table(starts, &title, terminal));
                if let Some(start) = median(starts) {
                    let drawn = waterfall(start, "The median start", why, terminal);
                    text = text + "\n" + &drawn;
                }
                text
            }
        }
    }

    fn write_files(&self, starts: &[ColdStart]) -> anyhow::Result<()> {
        if let Some(file) = &self.perfetto {
            let trace = perfetto::trace(starts, &self.title());
            write(file, &serde_json::to_vec(&trace)?)?;
        }
        if let (Some(file), Some(start)) = (&self.svg, median(starts)) {
            write(file, picture(start, &self.title()).as_bytes())?;
        }
        Ok(())
    }

    /// The command as it was typed, but for quotes.
    fn title(&self) -> String {
        let words: Vec<_> = self
            .command
            .iter()
            .map(|word| word.to_string_lossy())
            .collect();
        words.join(" ")
    }
}

/// What the shell is told of one start: as the command ended, where that was not well, else
/// whether it was ready.
fn code_of(start: &ColdStart, status: Option<ExitStatus>) -> u8 {
    let failed = status.filter(|status| !status.success());
    let Some(status) = failed else {
        return u8::from(!start.ready.is_ready());
    };
    let code = status.code().or(status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}

/// Refuses a file that cannot be written before the command is started many times for nothing.
pub(super) fn check_writable(file: &Path) -> anyhow::Result<()> {
    let folder = match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    anyhow::ensure!(
        folder.is_dir(),
        "{}: there is no folder {}; make it, or name another",
        file.display(),
        folder.display()
    );
    anyhow::ensure!(
        !file.is_dir(),
        "{} is a folder; name a file in it",
        file.display()
    );
    Ok(())
}

fn write(file: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    std::fs::write(file, bytes).with_context(|| format!("cannot write {}", file.display()))
}

fn print(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}

/// Whether nobody reads our output any longer.
pub(super) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<io::Error>()
        .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

async fn send(
    endpoint: &Endpoint,
    starts: &[ColdStart],
    contexts: &[TraceContext],
    clock: &WallClock,
) -> anyhow::Result<()> {
    let otlp = Otlp {
        protocol: protocol(endpoint),
        ..Otlp::default()
    };
    let collector = Collector::new(endpoint, &otlp, &resource())?;
    let records: Vec<_> = starts
        .iter()
        .zip(contexts)
        .map(|(start, context)| record(start, clock, *context))
        .collect();
    for batch in records.chunks(BATCH) {
        let sent = async {
            collector.send_spans(batch).await?;
            collector.send_logs(batch).await
        };
        sent.await
            .with_context(|| format!("the collector {endpoint} did not take the starts"))?;
    }
    Ok(())
}

/// The protocol that a collector's URL speaks, by the custom of its port.
fn protocol(endpoint: &Endpoint) -> Protocol {
    let uri = endpoint.as_str().parse::<axum::http::Uri>();
    let http = uri.is_ok_and(|uri| uri.port_u16() == Some(4318) || uri.path() != "/");
    if http { Protocol::Http } else { Protocol::Grpc }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::super::samples;
    use super::super::{Cli, Command};
    use super::*;

    fn parsed(arguments: &[&str]) -> Result<Trace, clap::Error> {
        let cli = Cli::try_parse_from([&["hearth", "trace"], arguments].concat())?;
        match cli.command {
            Command::Trace(trace) => Ok(trace),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_follows_the_dashes_is_the_command() {
        let trace = parsed(&["--repeat", "3", "--", "app", "--json", "-n", "1"]).expect("valid");
        assert_eq!((trace.repeat, trace.json), (3, false));
        assert_eq!(trace.title(), "app --json -n 1");
        assert_eq!(trace.ready, ReadyRule::default());
    }

    #[test]
    fn wrong_arguments_say_what_to_write() {
        for (arguments, needle) in [
            (
                &["--ready", "lsiten", "--", "app"][..],
                "`listen`, `accept`",
            ),
            (&["--repeat", "0", "--", "app"], "1..=10000"),
            (
                &["--otlp", "localhost:4317", "--", "app"],
                "http://127.0.0.1:4317",
            ),
            (&["--deadline", "5", "--", "app"], "has no unit"),
            (&["--json"], "<CMD>"),
        ] {
            let error = parsed(arguments).expect_err("wrong").to_string();
            assert!(error.contains(needle), "{arguments:?}: {error}");
        }
    }

    #[test]
    fn the_port_tells_the_protocol() {
        for (url, wanted) in [
            ("http://127.0.0.1:4317", Protocol::Grpc),
            ("https://collector.example", Protocol::Grpc),
            ("http://127.0.0.1:4318/", Protocol::Http),
            ("https://tempo.example/otlp", Protocol::Http),
        ] {
            let endpoint = Endpoint::try_from(url.to_owned()).expect("a URL");
            assert_eq!(protocol(&endpoint), wanted, "{url}");
        }
    }

    #[test]
    fn files_are_refused_before_and_written_after() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = |name: &str| folder.path().join(name).display().to_string();
        let missing = check_writable(Path::new(&file("none/x.svg"))).expect_err("no folder");
        assert!(
            missing.to_string().contains("there is no folder"),
            "{missing}"
        );
        assert!(check_writable(folder.path()).is_err());
        check_writable(Path::new("x.svg")).expect("the working directory");

        let (svg, perfetto) = (file("x.svg"), file("x.json"));
        let trace = parsed(&["--svg", &svg, "--perfetto", &perfetto, "--", "app"]).expect("valid");
        trace
            .write_files(&[samples::python(), samples::container()])
            .expect("written");
        assert!(
            std::fs::read_to_string(svg)
                .expect("a picture")
                .starts_with("<svg")
        );
        let json: serde_json::Value =
            serde_json::from_slice(&std::fs::read(perfetto).expect("a trace")).expect("JSON");
        assert!(
            json["traceEvents"]
                .as_array()
                .is_some_and(|events| events.len() > 20)
        );
    }

    #[test]
    fn repeats_are_told_as_percentiles_and_the_median_start() {
        let terminal = Terminal {
            width: 80,
            unicode: true,
            colour: false,
        };
        let trace = parsed(&["--repeat", "2", "--", "app"]).expect("valid");
        let text = trace.told(&[samples::python(), samples::python()], &[], &terminal);
        assert!(text.contains("app  2 starts: 2 ready (listen)"), "{text}");
        assert!(
            text.contains("The median start  ready (listen) after 48.2 ms"),
            "{text}"
        );
        assert_eq!(trace.told(&[], &[], &terminal), "");
    }
}
