//! How soon a function runs in a sandbox of its own, how many start in a second, and what one takes.
//!
//! A start ends where the function asks for its first request: the program is a static one that
//! does nothing before. Both sides give it the same: pid, mount, network, ipc, uts, user and cgroup
//! namespaces, one read-only layer below an overlay whose upper layer is a tmpfs of 8 MiB, limits of
//! memory, processor and processes, no capabilities, `no_new_privs`. Ours has more: an allow list
//! of system calls, which runc is not asked for, and the server of the Runtime API inside.
//!
//! - *fresh*, ours: from asking the spawner, which keeps nothing parked, to the function's first
//!   `/next`. All of it is made then: cgroup, namespaces, `hearth-init`, jail.
//! - *runc run*: from the mounts of the overlay, which runc leaves to who calls it, to the same
//!   request on a socket that is mounted into the container. Its bundle is written before.
//! - *pool hit*: the same from asking a spawner that has sandboxes parked, and nothing else to do.
//!
//! The end of a sandbox is not in the time of its start; it is in the number of starts in a second.

mod ours;
mod runc;
mod side;
mod space;

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use hearth_tests::node::{self, Node};

use super::pairs::{self, Precision};
use super::{Better, Figure, Printer};

use ours::Ours;
use runc::Runc;
use side::{Running, Side};
use space::Space;

/// Bytes, thousandths of a processor, processes, and bytes that may be written.
const MEMORY: u64 = 128 << 20;
const MILLICORES: u32 = 1000;
const PIDS: u32 = 64;
const WRITABLE: u64 = 8 << 20;

/// Begin of the names of what is made here.
const NAME: &str = "bench-sandbox";

/// The claim is of a factor of eight.
const PRECISION: Precision = Precision {
    half_width: 0.005,
    rounds: (3, 10),
};

/// Starts of one measurement.
const SAMPLE: usize = 20;

/// Starts at once, and how many in all.
const LOADS: [(usize, usize); 4] = [(1, 100), (10, 300), (50, 400), (200, 600)];

/// How many are parked under load: as many as by default.
const PARKED: u16 = 16;

/// How many are alive while others start.
const ALIVE: [usize; 3] = [0, 500, 1000];

/// Of how many the memory is measured.
const MEASURED: u16 = 200;

/// Figures that are measured together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Group {
    /// Fresh against `runc run`, and pool hits.
    Start,
    /// Starts per second, by how many are asked for at once.
    Rate,
    /// Time of a start beside others that are alive.
    Alive,
    /// What an idle sandbox takes.
    Memory,
}

/// Measures all groups of figures, or only one.
pub(crate) fn measure(only: Option<Group>, printer: &mut Printer) -> Result<()> {
    ensure!(
        rustix::process::geteuid().is_root(),
        "making sandboxes takes root"
    );
    node::sweep(NAME).context("remove what an earlier run left")?;
    // It makes the layer of both.
    let runc = Runc::new()?;
    let is_wanted = |group| only.is_none_or(|only| only == group);
    if is_wanted(Group::Start) {
        against_runc(&runc, printer)?;
        hits(printer, None)?;
    }
    if is_wanted(Group::Rate) {
        for (threads, starts) in LOADS {
            rate(printer, threads, starts)?;
        }
    }
    if is_wanted(Group::Alive) {
        beside_others(printer)?;
    }
    if is_wanted(Group::Memory) {
        memory(printer)?;
    }
    Ok(())
}

/// A spawner with as many parked.
fn keep(parked: u16) -> Result<(Node, Ours)> {
    let node = Node::start(NAME, parked)?;
    node.parked(parked.into())?;
    let ours = Ours::new(&node, &runc::layer())?;
    Ok((node, ours))
}

fn against_runc(runc: &Runc, printer: &mut Printer) -> Result<()> {
    let (_node, ours) = keep(0)?;
    // Both once before anything counts.
    several(&ours, 2)?;
    several(runc, 2)?;
    let quantiles = pairs::measure_several(
        PRECISION,
        || several(runc, SAMPLE),
        || Ok([several(&ours, SAMPLE)?, several(&ours, SAMPLE)?]),
    )?;
    for (pairs, quantile) in quantiles.iter().zip(["p50", "slowest of 20"]) {
        let name = format!("sandbox, fresh: {quantile}");
        printer.print(&pairs.figure(&name, "ms", "runc run", Better::Lower))?;
    }
    Ok(())
}

/// With a pool that is full at each start.
fn hits(printer: &mut Printer, alive: Option<usize>) -> Result<()> {
    let (node, ours) = keep(PARKED)?;
    let (mut claims, mut starts) = (Vec::new(), Vec::new());
    let mut steps: Vec<(String, Vec<f64>)> = Vec::new();
    for _ in 0..200 {
        node.parked(PARKED.into())?;
        let running = ours.start()?;
        ensure!(running.was_parked, "no sandbox was parked");
        claims.push(milliseconds(running.claimed));
        starts.push(milliseconds(running.took));
        let mut begin = Duration::ZERO;
        for (step, end) in &running.steps {
            let end = Duration::from_micros(*end);
            let took = milliseconds(end.saturating_sub(begin));
            match steps.iter_mut().find(|(known, _)| known == step) {
                Some((_, times)) => times.push(took),
                None => steps.push((step.clone(), vec![took])),
            }
            begin = end;
        }
        ours.end(running)?;
    }
    let of = alive.map_or_else(String::new, |alive| format!(", {alive} alive"));
    tell(printer, &format!("sandbox, pool hit{of}"), &starts)?;
    if alive.is_none() {
        tell(printer, "sandbox, pool hit, the claim", &claims)?;
        for (step, times) in steps {
            tell(printer, &format!("sandbox, pool hit, {step}"), &times)?;
        }
    }
    Ok(())
}

/// Whoever has started one ends it and starts the next.
fn rate(printer: &mut Printer, threads: usize, starts: usize) -> Result<()> {
    let (_node, ours) = keep(PARKED)?;
    let begin = Instant::now();
    let all = thread::scope(|scope| -> Result<Vec<_>> {
        let one = || -> Result<Vec<(f64, bool)>> {
            let each = (0..starts.div_ceil(threads)).map(|_| {
                let running = ours.start()?;
                let told = (milliseconds(running.took), running.was_parked);
                ours.end(running)?;
                Ok(told)
            });
            each.collect()
        };
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(one)).collect();
        let mut all = Vec::new();
        for thread in threads {
            let done = thread.join().map_err(|_| anyhow!("a thread panicked"))?;
            all.extend(done?);
        }
        Ok(all)
    })?;
    let took = begin.elapsed().as_secs_f64();
    let name = format!("sandbox, {threads} at once");
    let rate = count(all.len()) / took;
    let figure = Figure::alone(format!("{name}: started and ended"), rate, "1/s", all.len());
    printer.print(&figure.better(Better::Higher))?;
    let hits = all.iter().filter(|(_, was_parked)| *was_parked).count();
    let share = count(hits) / count(all.len()) * 100.0;
    printer.print(&Figure::alone(
        format!("{name}: were parked"),
        share,
        "%",
        all.len(),
    ))?;
    let times: Vec<_> = all.iter().map(|(took, _)| *took).collect();
    tell(printer, &name, &times)
}

/// Those that are alive have a function that waits for its first request.
fn beside_others(printer: &mut Printer) -> Result<()> {
    let (_node, ours) = keep(0)?;
    let mut alive = Vec::new();
    for count in ALIVE {
        while alive.len() < count {
            alive.push(ours.start()?);
        }
        let times = (0..100).map(|_| timed(&ours)).collect::<Result<Vec<_>>>()?;
        tell(printer, &format!("sandbox, fresh, {count} alive"), &times)?;
        hits(printer, Some(count))?;
    }
    alive.into_iter().try_for_each(|running| ours.end(running))
}

/// Of parked ones, and of those whose function waits for its first request.
fn memory(printer: &mut Printer) -> Result<()> {
    let n = usize::from(MEASURED);
    let mut print = |what: &str, bytes: f64| {
        let name = format!("sandbox, idle, {what}");
        let each = bytes / 1024.0 / f64::from(MEASURED);
        printer.print(&Figure::alone(name, each, "KiB", n).better(Better::Lower))
    };
    let (node, ours) = keep(0)?;
    // What is there once, whoever starts first.
    timed(&ours)?;
    drop((node, ours));
    let before = Space::available()?;
    let (node, ours) = keep(MEASURED)?;
    print("parked: MemAvailable", before - Space::available()?)?;
    print("parked: Pss", Space::of_sandboxes(&node)?)?;
    drop((node, ours));

    let before = Space::available()?;
    let (node, ours) = keep(0)?;
    let alive = (0..n).map(|_| ours.start()).collect::<Result<Vec<_>>>()?;
    print("started: MemAvailable", before - Space::available()?)?;
    print("started: Pss", Space::of_sandboxes(&node)?)?;
    alive.into_iter().try_for_each(|running| ours.end(running))
}

/// One start, in milliseconds; then its end.
fn timed(side: &impl Side) -> Result<f64> {
    let running = side.start()?;
    let took = milliseconds(running.took());
    side.end(running)?;
    Ok(took)
}

/// Median and maximum of so many starts, one after the other.
fn several(side: &impl Side, count: usize) -> Result<[f64; 2]> {
    let times = (0..count)
        .map(|_| timed(side))
        .collect::<Result<Vec<_>>>()?;
    Ok([0.5, 1.0].map(|share| pairs::quantile(&times, share)))
}

fn tell(printer: &mut Printer, name: &str, times: &[f64]) -> Result<()> {
    for (quantile, share) in [("p50", 0.5), ("p99", 0.99)] {
        let value = pairs::quantile(times, share);
        let figure = Figure::alone(format!("{name}: {quantile}"), value, "ms", times.len());
        printer.print(&figure.better(Better::Lower))?;
    }
    Ok(())
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

#[expect(clippy::cast_precision_loss, reason = "counts of starts are small")]
fn count(count: usize) -> f64 {
    count as f64
}
