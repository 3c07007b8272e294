//! What collectors and Prometheus get of real starts.

#[path = "dashboards/prometheus.rs"]
mod prometheus;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use hearth_tests::collector::{Addresses, Collector, Got, Item};
use hearth_tests::daemon::{self, Daemon};
use hearth_tests::start::Start;
use hearth_tests::{machine, requirement};

/// The workspace.
fn root() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// A program that only this test starts: a copy of one that does nothing.
struct Program {
    folder: tempfile::TempDir,
}

impl Program {
    fn new() -> Result<Self> {
        let folder = tempfile::TempDir::with_prefix("hearth-telemetry-")?;
        std::fs::copy("/bin/true", folder.path().join("nothing"))?;
        Ok(Self { folder })
    }

    fn path(&self) -> String {
        self.folder.path().join("nothing").display().to_string()
    }

    /// Settings by which only this program's starts are told.
    fn settings(&self, more_of_rule: &str, otlp: &str) -> String {
        format!(
            "mode = \"sandbox\"\ncgroups = false\n[[start]]\nexe = \"{}\"\n\
             function = \"shop\"\n{more_of_rule}\n[otlp]\ninterval = \"1s\"\n{otlp}\n",
            self.path()
        )
    }

    /// Starts it `count` times, and waits until the daemon has told every one.
    fn run(&self, daemon: &Daemon, count: usize) -> Result<Vec<Start>> {
        let before = daemon.starts(|_| true).len();
        for _ in 0..count {
            ensure!(Command::new(self.path()).status()?.success());
        }
        let starts = daemon.wait_for(before + count, |_| true)?;
        Ok(starts[before..].to_vec())
    }
}

fn is_root(span: &Item) -> bool {
    span.fields.get("Parent ID").is_some_and(String::is_empty)
}

fn roots(got: &Got) -> impl Iterator<Item = &Item> {
    got.spans.iter().filter(|span| is_root(span))
}

fn points(points: &[&Item]) -> Result<u64> {
    points.iter().map(|point| point.number("Value")).sum()
}

/// The trace of `start` tells the same as the start itself.
fn agrees(got: &Got, start: &Start) -> Result<()> {
    let pid = start.identity.pid.to_string();
    let root = roots(got)
        .find(|span| span.has("process.pid", &pid))
        .context("no root span")?;
    ensure!(root.field("Name")? == "cold_start shop", "{root:#?}");
    ensure!(
        root.has("faas.coldstart", "true") && root.has("faas.name", "shop"),
        "{root:#?}"
    );
    ensure!(root.has("hearth.ready", &start.ready), "{root:#?}");
    let (begin, end) = (root.number("Start time")?, root.number("End time")?);
    ensure!(end - begin == start.total_ns, "{root:#?}");

    let trace = root.field("Trace ID")?;
    let mut phases = got
        .spans
        .iter()
        .filter(|span| span.fields.get("Parent ID") == root.fields.get("ID"))
        .collect::<Vec<_>>();
    phases.sort_by_key(|span| span.number("Start time").unwrap_or_default());
    ensure!(phases.len() == start.phases.len(), "{phases:#?}");
    let mut next = begin;
    for (span, phase) in phases.iter().zip(&start.phases) {
        ensure!(span.field("Trace ID")? == trace, "{span:#?}");
        ensure!(
            span.number("Start time")? == next,
            "there is a gap before {span:#?}"
        );
        next = span.number("End time")?;
        ensure!(
            next - span.number("Start time")? == phase.end_ns - phase.begin_ns,
            "{span:#?}"
        );
        ensure!(span.field("Name")?.starts_with(&phase.name), "{span:#?}");
        for (cause, time) in [
            ("running", phase.running_ns),
            ("queued", phase.queued_ns),
            ("io", phase.io_ns),
            ("blocked", phase.blocked_ns),
        ] {
            // Seconds; and what was not measured is not there.
            let told = span.attributes.get(&format!("hearth.phase.{cause}"));
            let told = told.map(|seconds| seconds.parse::<f64>()).transpose()?;
            let expected = time.map(|time| Duration::from_nanos(time).as_secs_f64());
            ensure!(
                told == expected,
                "{cause} is {told:?} and not {expected:?}: {span:#?}"
            );
        }
    }
    ensure!(next == end, "the phases do not reach the end of {root:#?}");

    let log = got
        .logs
        .iter()
        .find(|log| log.has("process.pid", &pid))
        .context("no log record")?;
    ensure!(log.number("Timestamp")? == end, "{log:#?}");
    ensure!(log.field("Trace ID")? == trace, "{log:#?}");
    ensure!(log.field("Span ID")? == root.field("ID")?, "{log:#?}");
    for item in [root, log] {
        ensure!(
            item.resource
                .get("service.name")
                .is_some_and(|name| name == "hearth")
        );
        ensure!(
            item.resource.contains_key("host.name"),
            "{:?}",
            item.resource
        );
    }
    Ok(())
}

/// The wall clock's time of a span is that of the start: no more than a moment ago.
fn is_recent(got: &Got) -> Result<()> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    for root in roots(got) {
        let age = now.saturating_sub(Duration::from_nanos(root.number("End time")?));
        ensure!(
            age > Duration::ZERO && age < Duration::from_mins(5),
            "{age:?} ago: {root:#?}"
        );
    }
    Ok(())
}

fn reaches_a_collector(otlp: impl Fn(Addresses) -> String) -> Result<()> {
    requirement::root()?;
    let _machine = machine::shared()?;
    let addresses = Addresses::free()?;
    let collector = Collector::start(addresses, &[])?;
    let program = Program::new()?;
    let daemon = Daemon::start(&program.settings("", &otlp(addresses)))?;
    let starts = program.run(&daemon, 3)?;
    let count = |got: &Got| {
        let points = got.metric("hearth.cold_start.duration", &[("faas.name", "shop")]);
        points
            .iter()
            .filter_map(|point| point.number("Count").ok())
            .sum::<u64>()
    };
    let got = collector
        .wait_for(|got| roots(got).count() >= 3 && got.logs.len() >= 3 && count(got) >= 3)?;
    ensure!(roots(&got).count() == 3 && got.logs.len() == 3 && count(&got) == 3);
    for start in &starts {
        agrees(&got, start)?;
    }
    is_recent(&got)?;
    let exec = [("faas.name", "shop"), ("phase", "exec")];
    let phases = got.metric("hearth.cold_start.phase.duration", &exec);
    ensure!(
        phases.len() == 1 && phases[0].number("Count")? == 3,
        "{phases:#?}"
    );
    ensure!(
        !got.metric("hearth.agent.memory.pss", &[]).is_empty(),
        "no memory"
    );
    daemon.stop()
}

#[test]
fn a_start_reaches_a_collector_over_grpc() -> Result<()> {
    reaches_a_collector(|to| format!("endpoint = \"http://{}\"\n", to.grpc))
}

#[test]
fn a_start_reaches_a_collector_over_http() -> Result<()> {
    reaches_a_collector(|to| format!("endpoint = \"http://{}\"\nprotocol = \"http\"\n", to.http))
}

#[test]
fn a_start_reaches_a_collector_compressed() -> Result<()> {
    let gzip = "compression = \"gzip\"";
    reaches_a_collector(|to| format!("endpoint = \"http://{}\"\n{gzip}\n", to.grpc))?;
    reaches_a_collector(|to| {
        format!(
            "endpoint = \"http://{}\"\nprotocol = \"http\"\n{gzip}\n",
            to.http
        )
    })
}

#[test]
fn a_start_that_never_is_ready_is_an_error() -> Result<()> {
    requirement::root()?;
    let _machine = machine::shared()?;
    let addresses = Addresses::free()?;
    let collector = Collector::start(addresses, &[])?;
    let program = Program::new()?;
    let otlp = format!("endpoint = \"http://{}\"\n", addresses.grpc);
    let daemon = Daemon::start(&program.settings("ready = \"listen\"", &otlp))?;
    let starts = program.run(&daemon, 1)?;
    ensure!(starts[0].ready == "exited", "{:#?}", starts[0]);
    let got = collector.wait_for(|got| roots(got).count() == 1 && got.logs.len() == 1)?;
    agrees(&got, &starts[0])?;
    let root = roots(&got).next().context("a root")?;
    ensure!(
        root.field("Status code")? == "STATUS_CODE_ERROR",
        "{root:#?}"
    );
    ensure!(
        root.field("Status message")?
            .contains("ended before it was ready"),
        "{root:#?}"
    );
    ensure!(
        got.logs[0].field("SeverityText")? == "WARN",
        "{:#?}",
        got.logs[0]
    );
    daemon.stop()
}

#[test]
fn nothing_is_lost_while_the_collector_is_away() -> Result<()> {
    requirement::root()?;
    let _machine = machine::shared()?;
    for protocol in ["grpc", "http"] {
        let addresses = Addresses::free()?;
        let address = if protocol == "grpc" {
            addresses.grpc
        } else {
            addresses.http
        };
        let program = Program::new()?;
        let otlp = format!("endpoint = \"http://{address}\"\nprotocol = \"{protocol}\"\n");
        let daemon = Daemon::start(&program.settings("", &otlp))?;
        let away = |daemon: &Daemon| {
            daemon
                .errors()
                .lines()
                .filter(|line| line.contains("does not answer"))
                .count()
        };
        let mut pids = BTreeSet::new();
        let mut run = |count| -> Result<()> {
            pids.extend(
                program
                    .run(&daemon, count)?
                    .iter()
                    .map(|s| s.identity.pid.to_string()),
            );
            Ok(())
        };
        // Away from the beginning, there, away again, and there again.
        run(40)?;
        let deadline = Instant::now() + Duration::from_secs(30);
        while away(&daemon) == 0 {
            ensure!(
                Instant::now() < deadline,
                "no word of its absence: {}",
                daemon.errors()
            );
            std::thread::sleep(Duration::from_millis(100));
        }
        let first = Collector::start(addresses, &[])?;
        let mut got = first.wait_for(|got| roots(got).count() == 40 && got.logs.len() == 40)?;
        drop(first);
        run(40)?;
        let second = Collector::start(addresses, &[])?;
        run(5)?;
        let more = second.wait_for(|got| roots(got).count() == 45 && got.logs.len() == 45)?;
        got.spans.extend(more.spans);
        got.logs.extend(more.logs);
        let told = |items: Vec<&Item>| {
            items
                .iter()
                .filter_map(|i| i.attributes.get("process.pid").cloned())
                .collect::<BTreeSet<_>>()
        };
        ensure!(
            told(roots(&got).collect()) == pids,
            "other starts came over {protocol}"
        );
        ensure!(
            told(got.logs.iter().collect()) == pids,
            "other log records came"
        );
        let complete = second.wait_for(|got| {
            let sent = [("signal", "logs"), ("outcome", "sent")];
            points(&got.metric("hearth.agent.export.items", &sent)).is_ok_and(|n| n == 85)
        })?;
        ensure!(
            complete
                .metric("hearth.agent.export.items", &[("outcome", "evicted")])
                .is_empty()
        );
        ensure!(
            away(&daemon) < 5,
            "it says so again and again: {}",
            daemon.errors()
        );
        daemon.stop()?;
    }
    Ok(())
}

#[test]
fn what_does_not_fit_is_counted() -> Result<()> {
    requirement::root()?;
    let _machine = machine::shared()?;
    let addresses = Addresses::free()?;
    let program = Program::new()?;
    let otlp = format!(
        "endpoint = \"http://{}\"\n[otlp.spool]\nmemory = \"32KiB\"\n",
        addresses.grpc
    );
    let daemon = Daemon::start(&program.settings("", &otlp))?;
    let starts = program.run(&daemon, 60)?;
    let collector = Collector::start(addresses, &[])?;
    let last = starts.last().context("a start")?.identity.pid.to_string();
    let items = |got: &Got, outcome| {
        let labels = [("signal", "logs"), ("outcome", outcome)];
        points(&got.metric("hearth.agent.export.items", &labels)).unwrap_or_default()
    };
    let got = collector.wait_for(|got| {
        got.logs.iter().any(|log| log.has("process.pid", &last))
            && items(got, "sent") + items(got, "evicted") == 60
    })?;
    ensure!(items(&got, "evicted") > 0, "32 KiB held 60 starts");
    ensure!(
        items(&got, "sent") == got.logs.len() as u64,
        "sent and got differ"
    );
    daemon.stop()
}

#[test]
fn what_was_not_sent_is_sent_by_the_next_run() -> Result<()> {
    requirement::root()?;
    let _machine = machine::shared()?;
    let addresses = Addresses::free()?;
    let program = Program::new()?;
    let spool = program.folder.path().join("spool");
    let otlp = format!(
        "endpoint = \"http://{}\"\n[otlp.spool]\nmemory = \"32KiB\"\ndir = \"{}\"\n",
        addresses.grpc,
        spool.display()
    );
    let settings = program.settings("", &otlp);
    let daemon = Daemon::start(&settings)?;
    let starts = program.run(&daemon, 60)?;
    let said = daemon.stop_and_tell()?;
    ensure!(
        std::fs::read_dir(&spool)?.count() > 0,
        "nothing is kept in {}: {said}",
        spool.display()
    );

    let collector = Collector::start(addresses, &[])?;
    let daemon = Daemon::start(&settings)?;
    let got = collector.wait_for(|got| roots(got).count() == 60 && got.logs.len() == 60)?;
    for start in &starts {
        agrees(&got, start)?;
    }
    daemon.stop()?;
    ensure!(
        std::fs::read_dir(&spool)?.count() == 0,
        "what was sent is still kept"
    );
    Ok(())
}

#[test]
fn a_signal_that_is_refused_does_not_hold_back_the_others() -> Result<()> {
    requirement::root()?;
    let _machine = machine::shared()?;
    for protocol in ["grpc", "http"] {
        let addresses = Addresses::free()?;
        let address = if protocol == "grpc" {
            addresses.grpc
        } else {
            addresses.http
        };
        let collector = Collector::start(addresses, &["--otlp-receiver-traces-disabled"])?;
        let program = Program::new()?;
        let otlp = format!("endpoint = \"http://{address}\"\nprotocol = \"{protocol}\"\n");
        let daemon = Daemon::start(&program.settings("", &otlp))?;
        program.run(&daemon, 3)?;
        let refused = [("signal", "traces"), ("outcome", "refused")];
        let got = collector.wait_for(|got| {
            got.logs.len() >= 3 && !got.metric("hearth.agent.export.items", &refused).is_empty()
        })?;
        ensure!(
            got.spans.is_empty() && got.logs.len() == 3,
            "over {protocol}: {:#?}",
            got.logs
        );
        ensure!(
            daemon.errors().contains("refuses traces"),
            "{}",
            daemon.errors()
        );
        daemon.stop()?;
    }
    Ok(())
}

fn get(daemon: &Daemon, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect(daemon.metrics())?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .context("an answer has a body")?;
    ensure!(head.starts_with("HTTP/1.0 200"), "{path}: {head}");
    Ok(body.to_owned())
}

#[test]
fn promtool_finds_nothing_wrong_with_the_metrics() -> Result<()> {
    requirement::root()?;
    let _machine = machine::shared()?;
    let program = Program::new()?;
    let nobody = daemon::free_address()?;
    let otlp = format!("endpoint = \"http://{nobody}\"\n");
    let daemon = Daemon::start(&program.settings("", &otlp))?;
    program.run(&daemon, 2)?;
    let metrics = get(&daemon, "/metrics")?;
    let mut promtool = Command::new(prometheus::program("promtool")?)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    promtool
        .stdin
        .take()
        .context("its input")?
        .write_all(metrics.as_bytes())?;
    let output = promtool.wait_with_output()?;
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    ensure!(output.status.success() && said.is_empty(), "{said}");
    daemon.stop()
}

#[test]
fn prometheus_answers_questions_about_starts() -> Result<()> {
    requirement::root()?;
    let _machine = machine::shared()?;
    let program = Program::new()?;
    let daemon = Daemon::start(&program.settings("", ""))?;
    let starts = program.run(&daemon, 5)?;
    let prometheus = prometheus::Prometheus::start(daemon.metrics())?;
    let value = |promql: &str| -> Result<Option<f64>> {
        let answer = prometheus.query(promql)?;
        let value = answer[0]["value"][1].as_str().map(str::parse).transpose()?;
        Ok(value)
    };
    let deadline = Instant::now() + Duration::from_secs(30);
    while value("hearth_cold_start_duration_seconds_count{faas_name=\"shop\"}")? != Some(5.0) {
        ensure!(
            Instant::now() < deadline,
            "Prometheus never has five starts"
        );
        std::thread::sleep(Duration::from_millis(200));
    }
    let total = starts.iter().map(|start| start.total_ns).sum::<u64>();
    let sum = value("hearth_cold_start_duration_seconds_sum")?.context("a sum")?;
    ensure!(
        (sum - Duration::from_nanos(total).as_secs_f64()).abs() < 1e-9,
        "{sum} of {total} ns"
    );
    let phases = value("sum(hearth_cold_start_phase_duration_seconds_sum)")?.context("phases")?;
    ensure!(
        (phases - sum).abs() < 1e-9,
        "the phases sum to {phases} and not to {sum}"
    );
    let worst = starts
        .iter()
        .map(|start| start.total_ns)
        .max()
        .context("a start")?;
    let slowest = value("hearth_cold_start_slowest_seconds{rank=\"1\"}")?.context("a rank")?;
    ensure!(
        (slowest - Duration::from_nanos(worst).as_secs_f64()).abs() < 1e-9,
        "{slowest}"
    );
    let ranks = value("count(hearth_cold_start_slowest_seconds{trace_id=~\"[0-9a-f]{32}\"})")?;
    ensure!(ranks == Some(5.0), "{ranks:?} ranks");
    ensure!(prometheus.answers(
        "histogram_quantile(0.5, sum by (le) (hearth_cold_start_duration_seconds_bucket))"
    )?);
    daemon.stop()
}

#[test]
fn functions_beyond_the_bound_are_other() -> Result<()> {
    requirement::root()?;
    let _machine = machine::shared()?;
    let program = Program::new()?;
    let copies = (0..4).map(|n| program.folder.path().join(format!("copy{n}")));
    let copies = copies.collect::<Vec<_>>();
    let mut rules = String::new();
    for copy in &copies {
        std::fs::copy(program.path(), copy)?;
        writeln!(rules, "[[start]]\nexe = \"{}\"", copy.display())?;
    }
    let settings = format!("mode = \"sandbox\"\ncgroups = false\n{rules}");
    let daemon = Daemon::start_with(&settings, "max_functions = 2")?;
    for (index, copy) in copies.iter().enumerate() {
        ensure!(Command::new(copy).status()?.success());
        daemon.wait_for(index + 1, |_| true)?;
    }
    let scrape = daemon.scrape()?;
    for (name, expected) in [("copy0", 1), ("copy1", 1), ("~other", 2)] {
        let labels = [("faas_name", name)];
        let count = scrape.count("hearth_cold_start_duration_seconds_count", &labels)?;
        ensure!(count == expected, "{name}: {count}");
    }
    daemon.stop()
}

#[test]
fn the_page_shows_the_last_starts() -> Result<()> {
    requirement::root()?;
    let _machine = machine::shared()?;
    let program = Program::new()?;
    let daemon = Daemon::start(&program.settings("", ""))?;
    ensure!(get(&daemon, "/healthz")? == "ok\n");
    ensure!(get(&daemon, "/")?.contains("None yet"));
    let starts = program.run(&daemon, 3)?;
    let told: Vec<Start> = serde_json::from_str(&get(&daemon, "/starts.json")?)?;
    let pids = |starts: &[Start]| starts.iter().map(|s| s.identity.pid).collect::<Vec<_>>();
    let newest_first = starts.iter().rev().cloned().collect::<Vec<_>>();
    ensure!(pids(&told) == pids(&newest_first), "{told:#?}");
    ensure!(get(&daemon, "/")?.matches("shop").count() == 3);
    daemon.stop()
}
