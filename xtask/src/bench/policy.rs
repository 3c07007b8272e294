//! How often requests wait, and how much memory waits for requests, by policy: on made-up traces of
//! several kinds, as many of each as there are seeds.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use anyhow::{Context as _, Result, anyhow};
use hearth_runtime::pool::policy::Choice;
use hearth_runtime::pool::simulate::{self, Clairvoyant, Generator, Options, Report, Synthetic};

use super::pairs::Pairs;
use super::{Better, Figure, Printer};

/// What the default is to be better than.
const PEERS: [&str; 2] = ["fixed:600", "hybrid"];
/// By how much less, in cold starts and in memory.
const LESS: f64 = 0.9;
/// The first seed. What the default's parameters were chosen by are the traces of 0 to 19: a figure
/// of those would say how well they were fitted.
const FIRST_SEED: u64 = 1000;

/// What each policy did with the trace of each seed.
type Reports = BTreeMap<usize, Vec<Report>>;

/// A number of a report.
type Value = fn(&Report) -> f64;

/// Simulates every policy on `seeds` traces of each kind with so many apps.
pub(crate) fn measure(seeds: usize, apps: Option<usize>, printer: &mut Printer) -> Result<()> {
    let default = Choice::default();
    let mut policies = Choice::ALL.to_vec();
    let peers = PEERS.map(str::parse::<Choice>);
    for policy in peers.iter().flatten().chain([&default]) {
        if !policies.contains(policy) {
            policies.push(*policy);
        }
    }
    for generator in Generator::ALL {
        let reports = simulate_all(generator, &policies, seeds, apps)?;
        let of = |policy: Choice| -> Result<Vec<&Report>> {
            let index = policies.iter().position(|one| *one == policy);
            let index = index.context("a policy that was not simulated")?;
            let of_seed = |seed| reports.get(&seed)?.get(index);
            (0..seeds)
                .map(|seed| of_seed(seed).context("a trace that was not simulated"))
                .collect()
        };
        for &policy in &policies {
            each(generator, policy, &of(policy)?, printer)?;
        }
        let ours = of(default)?;
        for peer in peers.iter().flatten().filter(|peer| **peer != default) {
            against(generator, &ours, *peer, &of(*peer)?, printer)?;
        }
    }
    Ok(())
}

/// On all processors: which does which does not matter.
fn simulate_all(
    generator: Generator,
    policies: &[Choice],
    seeds: usize,
    apps: Option<usize>,
) -> Result<Reports> {
    let next = AtomicUsize::new(0);
    let reports = Mutex::new(Reports::new());
    let work = || -> Result<()> {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds {
                return Ok(());
            }
            let made_up = generator.with(FIRST_SEED + seed as u64);
            let apps = apps.unwrap_or(made_up.apps / 4);
            let trace = Synthetic { apps, ..made_up }.trace()?;
            let clairvoyant = Clairvoyant::of(&trace);
            let run = |policy: &Choice| {
                simulate::run(&trace, &Options::new(*policy), &clairvoyant, &mut |_| ())
            };
            let each = policies.iter().map(run).collect();
            let mut reports = reports
                .lock()
                .map_err(|_| anyhow!("a simulation panicked"))?;
            reports.insert(seed, each);
        }
    };
    let threads = thread::available_parallelism().map_or(1, std::num::NonZero::get);
    thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        running.into_iter().try_for_each(|thread| {
            thread
                .join()
                .map_err(|_| anyhow!("a simulation panicked"))?
        })
    })?;
    reports
        .into_inner()
        .map_err(|_| anyhow!("a simulation panicked"))
}

fn cold(report: &Report) -> f64 {
    report.cold_start_share * 100.0
}

fn waited(report: &Report) -> f64 {
    report.waited_share * 100.0
}

/// Per request, so that traces of different sizes compare.
#[expect(clippy::cast_precision_loss, reason = "a figure to read")]
fn idle(report: &Report) -> f64 {
    report.idle_memory_gib_s / report.requests.max(1) as f64
}

fn each(
    generator: Generator,
    policy: Choice,
    reports: &[&Report],
    printer: &mut Printer,
) -> Result<()> {
    let figures: [(&str, &'static str, Value); 4] = [
        ("cold starts", "%", cold),
        ("not served at once", "%", waited),
        ("idle memory", "GiB s/req", idle),
        ("regret", "%", |report| report.regret * 100.0),
    ];
    for (what, unit, of) in figures {
        let values: Vec<f64> = reports.iter().map(|report| of(report)).collect();
        let name = format!("{}: {policy}: {what}", generator.word());
        let mean = super::pairs::mean(&values);
        let figure = Figure::alone(name, mean, unit, values.len()).better(Better::Lower);
        printer.print(&figure)?;
    }
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "a few seeds")]
fn against(
    generator: Generator,
    ours: &[&Report],
    peer: Choice,
    peers: &[&Report],
    printer: &mut Printer,
) -> Result<()> {
    let name = |what: &str| format!("{}: ours: {what}", generator.word());
    for (what, unit, of) in [
        ("cold starts", "%", cold as Value),
        ("not served at once", "%", waited),
        ("idle memory", "GiB s/req", idle),
    ] {
        let pairs = ours.iter().zip(peers);
        let pairs: Pairs = pairs.map(|(ours, peer)| (of(ours), of(peer))).collect();
        let figure = pairs.figure(&name(what), unit, peer.to_string(), Better::Lower);
        printer.print(&figure)?;
    }
    let is_less = |(ours, peer): &(&&Report, &&Report)| {
        cold(ours) <= LESS * cold(peer) && idle(ours) <= LESS * idle(peer)
    };
    let less = ours.iter().zip(peers).filter(is_less).count();
    let name = name(&format!("10 % less of both than {peer}"));
    let figure = Figure::alone(name, less as f64, "seeds", ours.len());
    printer.print(&figure.better(Better::Higher))
}
