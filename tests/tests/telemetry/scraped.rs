//! What Prometheus scrapes, and what the page shows.

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use hearth_tests::daemon::{self, Daemon};
use hearth_tests::start::Start;
use hearth_tests::{machine, requirement};

use crate::prometheus;

use crate::shop::Program;

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

/// Whether `promtool` likes all that is scraped.
pub(crate) fn lint(daemon: &Daemon) -> Result<()> {
    let metrics = get(daemon, "/metrics")?;
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
    Ok(())
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
    lint(&daemon)?;
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
