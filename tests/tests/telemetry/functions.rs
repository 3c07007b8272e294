//! What Prometheus and a collector get of functions, against what their callers saw.

use std::collections::{BTreeMap, BTreeSet};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use hearth_tests::api::{Api, Reply};
use hearth_tests::collector::{Addresses, Collector, Got};
use hearth_tests::daemon::Daemon;
use hearth_tests::machine;
use hearth_tests::metrics::Scrape;
use hearth_tests::node::{Language, PATIENCE};
use hearth_tests::serving::Serving;
use serde_json::{Value, json};

use crate::scraped::lint;

/// Of a series, as OTLP has them.
type Attributes = &'static [(&'static str, &'static str)];

/// What the callers of a function saw.
#[derive(Debug, Default)]
struct Saw {
    /// Requests that a sandbox was idle for.
    hits: u64,
    /// That were sent while all were at work, and done.
    queued: u64,
    /// That a sandbox was started for.
    misses: u64,
    /// That were refused.
    refused: u64,
    answered: u64,
    failed: u64,
    timed_out: u64,
    sandboxes: BTreeSet<String>,
    /// How long those took together that were not refused, as their callers saw it.
    took: Duration,
}

impl Saw {
    fn note(&mut self, reply: &Reply, took: Duration, waited: bool) -> Result<()> {
        if reply.status == 429 {
            ensure!(reply.header("retry-after").is_some(), "{reply}");
            self.refused += 1;
            return Ok(());
        }
        ensure!(reply.status == 200, "{reply}");
        self.took += took;
        match reply.header("hearth-sandbox-origin") {
            Some("warm") if waited => self.queued += 1,
            Some("warm") => self.hits += 1,
            _ => self.misses += 1,
        }
        self.sandboxes
            .extend(reply.header("hearth-sandbox").map(str::to_owned));
        match reply.header("hearth-function-error") {
            None => self.answered += 1,
            Some("Sandbox.Timedout") => {
                self.failed += 1;
                self.timed_out += 1;
            }
            Some(_) => self.failed += 1,
        }
        Ok(())
    }

    /// The counters and how far they have come.
    fn counts(&self) -> Vec<(&'static str, Attributes, u64)> {
        vec![
            ("hearth.pool.claims", &[("result", "hit")], self.hits),
            ("hearth.pool.claims", &[("result", "queued")], self.queued),
            ("hearth.pool.claims", &[("result", "miss")], self.misses),
            (
                "hearth.pool.claims",
                &[("result", "refused"), ("reason", "full")],
                self.refused,
            ),
            ("hearth.pool.claims", &[("reason", "late")], 0),
            ("faas.coldstarts", &[], self.misses),
            ("faas.invocations", &[], self.answered),
            ("faas.errors", &[], self.failed),
            ("faas.timeouts", &[], self.timed_out),
            ("hearth.heal.actions", &[("outcome", "failed")], 0),
        ]
    }
}

/// A request that is under way.
type Asked = JoinHandle<(Result<Reply>, Duration)>;

fn ask(api: &Api, payload: Value, patience: Duration) -> Asked {
    let api = api.clone();
    thread::spawn(move || {
        let began = Instant::now();
        (api.invoke("rust", &payload, patience), began.elapsed())
    })
}

fn note(saw: &mut Saw, asked: Asked, waited: bool) -> Result<()> {
    let (reply, took) = asked.join().map_err(|_| anyhow!("a caller panicked"))?;
    saw.note(&reply?, took, waited)
}

/// Waits until a scrape is as `is_so` wants it.
fn scraped(daemon: &Daemon, what: &str, is_so: impl Fn(&Scrape) -> bool) -> Result<Scrape> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let scrape = daemon.scrape()?;
        if is_so(&scrape) {
            return Ok(scrape);
        }
        ensure!(Instant::now() < deadline, "never so: {what}: {scrape:#?}");
        thread::sleep(Duration::from_millis(100));
    }
}

fn sandboxes(scrape: &Scrape, state: &str) -> u64 {
    let labels = [("faas_name", "rust"), ("state", state)];
    scrape.count("hearth_pool_sandboxes", &labels).unwrap_or(0)
}

fn waiting(scrape: &Scrape) -> u64 {
    let labels = [("faas_name", "rust")];
    scrape.count("hearth_pool_waiting", &labels).unwrap_or(0)
}

/// Requests of every kind: for nobody, for idle ones, for more than there may be, with a failure,
/// and with one that takes too long.
fn burst(api: &Api, daemon: &Daemon) -> Result<Saw> {
    let mut saw = Saw::default();
    let echo = || json!({ "do": "echo" });
    for _ in 0..4 {
        note(&mut saw, ask(api, echo(), PATIENCE), false)?;
    }
    let sleep = json!({ "do": "sleep", "seconds": 4.0 });
    let busy: Vec<Asked> = (0..2).map(|_| ask(api, sleep.clone(), PATIENCE)).collect();
    scraped(daemon, "both are at work", |now| {
        sandboxes(now, "busy") == 2
    })?;
    let queued: Vec<Asked> = (0..2).map(|_| ask(api, echo(), PATIENCE)).collect();
    scraped(daemon, "two wait", |now| waiting(now) == 2)?;
    for _ in 0..3 {
        note(&mut saw, ask(api, echo(), PATIENCE), false)?;
    }
    ensure!(saw.refused == 3, "{saw:?}");
    for asked in busy {
        note(&mut saw, asked, false)?;
    }
    for asked in queued {
        note(&mut saw, asked, true)?;
    }
    note(&mut saw, ask(api, json!({ "do": "fail" }), PATIENCE), false)?;
    let spin = json!({ "do": "spin" });
    note(&mut saw, ask(api, spin, Duration::from_millis(300)), false)?;
    ensure!(
        saw.queued == 2 && saw.timed_out == 1 && saw.failed == 2,
        "{saw:?}"
    );
    Ok(saw)
}

/// As a Prometheus names it.
fn scraped_count(scrape: &Scrape, name: &str, attributes: &[(&str, &str)]) -> Result<u64> {
    let mut labels = vec![("faas_name", "rust")];
    labels.extend(attributes);
    scrape.count(&format!("{}_total", name.replace('.', "_")), &labels)
}

fn collected(got: &Got, name: &str, attributes: &[(&str, &str)]) -> Option<u64> {
    let mut all = vec![("faas.name", "rust")];
    all.extend(attributes);
    let points = got.metric(name, &all);
    if points.is_empty() {
        return None;
    }
    points.iter().map(|point| point.number("Value").ok()).sum()
}

/// Counts and sums of the two histograms, seconds.
fn durations(scrape: &Scrape) -> Result<BTreeMap<&'static str, (u64, f64)>> {
    let labels = [("faas_name", "rust")];
    let of = |name: &'static str| {
        let count = scrape.count(&format!("faas_{name}_duration_seconds_count"), &labels)?;
        let sum = format!("faas_{name}_duration_seconds_sum");
        let sum = scrape.matching(&sum, &labels).next().context("a sum")?;
        Ok((name, (count, sum.value.parse()?)))
    };
    ["invoke", "init"].into_iter().map(of).collect()
}

#[test]
fn prometheus_and_a_collector_are_told_of_pools_what_callers_saw() -> Result<()> {
    let _machine = machine::shared()?;
    let serving = Serving::new("pool-metrics", 2)?;
    let addresses = Addresses::free()?;
    let collector = Collector::start(addresses, &[])?;
    let daemon = serving.agent(&format!(
        "[otlp]\ninterval = \"1s\"\nendpoint = \"http://{}\"\n",
        addresses.grpc
    ))?;
    serving.deploy(
        Language::Rust,
        &[
            "--set",
            "max_instances=2",
            "--set",
            "queue=2",
            "--set",
            "policy=fixed:600",
        ],
    )?;
    // Everything is there before the first request, and 0.
    let before = scraped(&daemon, "the pool is told", |now| {
        sandboxes(now, "max") == 2
    })?;
    for (name, attributes, _) in Saw::default().counts() {
        let count = scraped_count(&before, name, attributes)?;
        ensure!(count == 0, "{name}{attributes:?}: {count}");
    }

    let saw = burst(&serving.api(), &daemon)?;
    let done = saw.answered + saw.failed;
    let after = scraped(&daemon, "all is over", |now| {
        let counted = |name| scraped_count(now, name, &[]).unwrap_or(0);
        counted("faas.invocations") + counted("faas.errors") == done && sandboxes(now, "busy") == 0
    })?;
    for (name, attributes, wanted) in saw.counts() {
        let count = scraped_count(&after, name, attributes)?;
        ensure!(count == wanted, "{name}{attributes:?}: {count}, {saw:#?}");
    }
    let durations = durations(&after)?;
    let (count, sum) = durations["invoke"];
    // Both slept for 4 s, and nobody saw less than the function took.
    ensure!(count == done, "{durations:?} {saw:#?}");
    ensure!(
        (8.0..saw.took.as_secs_f64()).contains(&sum),
        "{durations:?} {saw:#?}"
    );
    let (starts, sum) = durations["init"];
    ensure!(
        starts >= saw.sandboxes.len() as u64 && sum > 0.0,
        "{durations:?} {saw:#?}"
    );
    let idle = after.count("hearth_pool_idle_memory_bytes", &[("faas_name", "rust")])?;
    ensure!((idle > 0) == (sandboxes(&after, "ready") > 0), "{after:#?}");
    lint(&daemon)?;

    let got = collector.wait_for(|got| {
        let mut counts = saw.counts().into_iter();
        counts.all(|(name, attributes, wanted)| collected(got, name, attributes) == Some(wanted))
    })?;
    let [invoked] = &got.metric("faas.invoke_duration", &[("faas.name", "rust")])[..] else {
        anyhow::bail!("one series: {:#?}", got.metric("faas.invoke_duration", &[]));
    };
    ensure!(invoked.number("Count")? == done, "{invoked:#?}");

    // Another version: what is idle of the old one is ended, and that is counted.
    let ready = sandboxes(&daemon.scrape()?, "ready");
    serving.deploy(
        Language::Rust,
        &["--env", "OTHER=1", "--set", "policy=fixed:600"],
    )?;
    let old = [("faas_name", "rust"), ("why", "old")];
    scraped(&daemon, "the old ones are ended", |now| {
        now.count("hearth_pool_retired_total", &old).ok() == Some(ready)
    })?;
    daemon.stop()
}
