//! A collector that is away, or does not want everything.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use hearth_tests::collector::{Addresses, Collector, Got, Item};
use hearth_tests::daemon::Daemon;
use hearth_tests::{machine, requirement};

use crate::shop::{Program, agrees, points, roots};

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
