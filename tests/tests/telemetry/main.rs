//! What collectors and Prometheus get of real starts.

mod away;
mod functions;
mod locks;
mod oom;
#[path = "../dashboards/prometheus.rs"]
mod prometheus;
mod scraped;
mod shop;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use hearth_tests::collector::{Addresses, Collector, Got};
use hearth_tests::daemon::Daemon;
use hearth_tests::{machine, requirement};

use shop::{Program, agrees, roots};

/// The workspace.
fn root() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
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
