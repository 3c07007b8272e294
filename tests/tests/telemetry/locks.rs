//! What a collector gets of cgroup locks that are contended for.

use anyhow::{Context as _, Result, ensure};
use hearth_tests::collector::{Addresses, Collector, Got, Item};
use hearth_tests::daemon::Daemon;
use hearth_tests::storm::Storm;
use hearth_tests::{machine, requirement};

const WAIT: &str = "hearth.cgroup.lock.wait";
const MKDIR: [(&str, &str); 2] = [("lock", "cgroup_mutex"), ("operation", "mkdir")];

/// Log records of long waits of one process.
fn long_waits(got: &Got, pid: u32) -> Vec<&Item> {
    let pid = pid.to_string();
    let of_storm =
        |log: &&Item| log.has("process.pid", &pid) && log.has("hearth.lock.name", "cgroup_mutex");
    got.logs.iter().filter(of_storm).collect()
}

fn reaches_a_collector(otlp: impl Fn(Addresses) -> String) -> Result<()> {
    requirement::root()?;
    let _machine = machine::quiet()?;
    let addresses = Addresses::free()?;
    let collector = Collector::start(addresses, &[])?;
    let settings = format!(
        "signals = [\"cgroup_lock\"]\n[otlp]\ninterval = \"1s\"\n{}",
        otlp(addresses)
    );
    let daemon = Daemon::start(&settings)?;
    let storm = Storm::start("own", "attach", 12_000)?;
    let pid = storm.pid();
    let got = collector
        .wait_for(|got| !got.metric(WAIT, &MKDIR).is_empty() && !long_waits(got, pid).is_empty())?;
    let told = storm.finish()?;
    let points = got.metric(WAIT, &MKDIR);
    let point = points.last().context("a point")?;
    ensure!(point.number("Count")? > 0, "{point:#?}");
    let log = long_waits(&got, pid)[0];
    let wait: f64 = log.attribute("hearth.lock.wait")?.parse()?;
    #[expect(clippy::cast_precision_loss, reason = "compared to whole seconds")]
    let most = (told.end_ns - told.begin_ns) as f64 / 1e9;
    // No thread can have waited longer than the storm, and shorter waits are not told.
    ensure!(
        (0.01..=most).contains(&wait),
        "{wait} s of {most} s: {log:#?}"
    );
    daemon.stop()
}

#[test]
fn waits_reach_a_collector_over_grpc() -> Result<()> {
    reaches_a_collector(|to| format!("endpoint = \"http://{}\"\n", to.grpc))
}

#[test]
fn waits_reach_a_collector_over_http_compressed() -> Result<()> {
    reaches_a_collector(|to| {
        format!(
            "endpoint = \"http://{}\"\nprotocol = \"http\"\ncompression = \"gzip\"\n",
            to.http
        )
    })
}
