//! What a collector gets of a kill for want of memory.

use anyhow::{Context as _, Result, ensure};
use hearth_tests::collector::{Addresses, Collector, Got, Item};
use hearth_tests::daemon::Daemon;
use hearth_tests::pen::{LIMIT, Pen};
use hearth_tests::{machine, programs, requirement};

/// The log records of the kill of one process.
fn kills(got: &Got, pid: u32) -> Vec<&Item> {
    let pid = pid.to_string();
    let is =
        |log: &&Item| log.has("process.pid", &pid) && log.has("hearth.oom.constraint", "cgroup");
    got.logs.iter().filter(is).collect()
}

fn reaches_a_collector(otlp: impl Fn(Addresses) -> String) -> Result<()> {
    requirement::root()?;
    let _machine = machine::shared()?;
    let addresses = Addresses::free()?;
    let collector = Collector::start(addresses, &[])?;
    let leak = programs::leaks()?.into_iter().next().context("a leak")?;
    let pen = Pen::new("oom-otlp")?;
    let settings = format!(
        "mode = \"process\"\n[otlp]\ninterval = \"1s\"\n{}",
        otlp(addresses)
    );
    let daemon = Daemon::start(&settings)?;
    let pid = pen.kill(&leak)?;
    let complete = [("completeness", "complete")];
    let got = collector.wait_for(|got| {
        !kills(got, pid).is_empty() && !got.metric("hearth.oom.captures", &complete).is_empty()
    })?;
    let [log] = kills(&got, pid)[..] else {
        anyhow::bail!("one record a kill: {:#?}", kills(&got, pid));
    };
    ensure!(log.field("SeverityText")? == "WARN", "{log:#?}");
    ensure!(
        log.attribute("hearth.oom.limit")? == LIMIT.to_string(),
        "{log:#?}"
    );
    ensure!(
        log.attribute("hearth.oom.cgroup")? == pen.cgroup.path,
        "{log:#?}"
    );
    ensure!(
        log.attribute("hearth.oom.completeness")? == "complete",
        "{log:#?}"
    );
    ensure!(
        !format!("{log:?}").contains("hunter2"),
        "a secret: {log:#?}"
    );
    // It is in the trace of the start that the victim was in, if that was told.
    let own = pid.to_string();
    if let Some(root) = got.spans.iter().find(|span| span.has("process.pid", &own)) {
        ensure!(
            log.field("Trace ID")? == root.field("Trace ID")?,
            "{log:#?} {root:#?}"
        );
    } else {
        ensure!(
            !daemon.losses()?.is_empty(),
            "no trace of the victim, and nothing lost"
        );
    }
    daemon.stop()
}

#[test]
fn a_kill_reaches_a_collector_over_grpc() -> Result<()> {
    reaches_a_collector(|to| format!("endpoint = \"http://{}\"\n", to.grpc))
}

#[test]
fn a_kill_reaches_a_collector_over_http_compressed() -> Result<()> {
    reaches_a_collector(|to| {
        format!(
            "endpoint = \"http://{}\"\nprotocol = \"http\"\ncompression = \"gzip\"\n",
            to.http
        )
    })
}
