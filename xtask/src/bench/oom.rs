//! Whether every kill for want of memory is captured, how completely, and how soon.

mod arrivals;
mod captured;
mod victims;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use super::agent::Agent;
use super::pairs::quantile;
use super::{Better, Figure, Place, Printer, guest};
use crate::kernels::Kernel;
use crate::workspace::Workspace;
use anyhow::{Context as _, Result, ensure};
use arrivals::Arrival;
use captured::{Captured, Fields};
use victims::{Killed, Variant, Victims};

/// In the VM, where every kill takes many times as long, there are fewer by this.
const FEWER_IN_VM: u32 = 20;

/// How long the last captures may take to arrive.
const PATIENCE: Duration = Duration::from_secs(20);

/// Kills of one variant, and what became of them.
#[derive(Default)]
struct Outcome {
    /// By the kernel's own counters.
    kills: u64,
    captures: u64,
    /// Captures of processes that told their stacks before.
    told_stacks: u64,
    /// Those that have, of every thread that was told of, the stack that was told.
    same_stacks: u64,
    /// From each kill to its file, ms.
    latencies: Vec<f64>,
}

#[derive(Default)]
struct Outcomes {
    by_variant: BTreeMap<Variant, Outcome>,
    fields: Fields,
}

impl Outcomes {
    fn are_awaited(&self) -> bool {
        let mut outcomes = self.by_variant.values();
        outcomes.any(|outcome| outcome.captures < outcome.kills)
    }

    fn add(&mut self, variant: Variant, captured: &Captured, same: Option<bool>, took_ns: u64) {
        let outcome = self.by_variant.entry(variant).or_default();
        outcome.captures += 1;
        outcome.told_stacks += u64::from(same.is_some());
        outcome.same_stacks += u64::from(same == Some(true));
        outcome.latencies.push(float(took_ns) / 1e6);
        self.fields.note(captured);
    }
}

/// Kills on this kernel and in the VM, or only on one.
pub(crate) fn measure(
    workspace: &Workspace,
    agent: &Path,
    count: u32,
    only: Option<Place>,
    printer: &mut Printer,
) -> Result<()> {
    ensure!(
        rustix::process::geteuid().is_root(),
        "attaching probes takes root"
    );
    ensure!(count > 0, "--count 0 leaves nothing to measure");
    if only != Some(Place::Vm) {
        here(agent, count, printer)?;
    }
    if only != Some(Place::Here) {
        let count = count.div_ceil(FEWER_IN_VM).to_string();
        let arguments = ["oom", "--only", "here", "--count", &count];
        guest::measure(
            workspace,
            Some(agent),
            Kernel::V6_1,
            &arguments,
            Vec::new(),
            printer,
        )?;
    }
    Ok(())
}

fn here(agent: &Path, count: u32, printer: &mut Printer) -> Result<()> {
    let agent = Agent::with(agent, "")?;
    let arrivals = arrivals::watch(&agent.captures())?;
    let victims = Victims::new()?;
    let variants = victims.variants(guest::is_inside());
    let mut killed: BTreeMap<Variant, Vec<Killed>> = BTreeMap::new();
    for turn in (0..count).map(|turn| turn as usize) {
        let variant = variants[turn % variants.len()];
        // One kill for want of the node's memory is as good as many, and takes longest.
        if variant == Variant::Global && killed.contains_key(&variant) {
            continue;
        }
        let one = victims
            .kill(variant)
            .with_context(|| format!("{variant:?}"))?;
        killed.entry(variant).or_default().push(one);
    }
    let outcomes = outcomes(&victims, &killed, &arrivals)?;
    tell(printer, &outcomes, &agent)?;
    agent.stop()
}

/// Waits for the captures, and lays them beside what was killed.
fn outcomes(
    victims: &Victims,
    killed: &BTreeMap<Variant, Vec<Killed>>,
    arrivals: &Receiver<Arrival>,
) -> Result<Outcomes> {
    let mut outcomes = Outcomes::default();
    for &variant in killed.keys() {
        let outcome = outcomes.by_variant.entry(variant).or_default();
        outcome.kills = victims.counted(variant)?;
    }
    let deadline = Instant::now() + PATIENCE;
    while outcomes.are_awaited() {
        let left = deadline.saturating_duration_since(Instant::now());
        let Ok(arrival) = arrivals.recv_timeout(left) else {
            break;
        };
        let captured = Captured::read(&arrival.file)
            .with_context(|| format!("the capture {}", arrival.file.display()))?;
        let stacks = |variant| {
            let mut killed = killed.get(&variant).into_iter().flatten();
            killed.find_map(|one: &Killed| one.has_stacks_of(&captured))
        };
        let own = captured.cgroup.as_deref().and_then(|path| victims.of(path));
        let global = || stacks(Variant::Global).map(|_| Variant::Global);
        // Others on this machine may run out of memory too.
        if let Some(variant) = own.or_else(global) {
            let took = arrival.at_ns.saturating_sub(captured.killed_ns);
            outcomes.add(variant, &captured, stacks(variant), took);
        }
    }
    Ok(outcomes)
}

fn tell(printer: &mut Printer, outcomes: &Outcomes, agent: &Agent) -> Result<()> {
    for (variant, outcome) in &outcomes.by_variant {
        let name = format!("oom captures, {}", variant.name());
        let (captures, kills) = (float(outcome.captures), float(outcome.kills));
        let n = usize::try_from(outcome.kills).unwrap_or(usize::MAX);
        printer.print(&Figure {
            peer: Some("kills".into()),
            peer_value: Some(kills),
            ratio: Some(captures / kills),
            ..Figure::alone(name, captures, "captures", n).better(Better::Higher)
        })?;
        let name = format!("oom user stacks as the program's, {}", variant.name());
        printer.print(&share(name, outcome.same_stacks, outcome.told_stacks))?;
    }
    let lost = Figure::alone("oom events lost", agent.lost()?, "events", 1);
    printer.print(&lost.better(Better::Lower))?;
    for (field, had) in outcomes.fields.all() {
        let why = had.reason.as_ref();
        let why = why.map_or_else(String::new, |why| format!(", else {why}"));
        let name = format!("oom field {field}{why}");
        printer.print(&share(name, had.present, had.asked))?;
    }
    let mut all = Vec::new();
    for (variant, outcome) in &outcomes.by_variant {
        let name = format!("oom kill to file, {}, p50", variant.name());
        latency(printer, name, &outcome.latencies, 0.5)?;
        all.extend_from_slice(&outcome.latencies);
    }
    for (name, at) in [("p50", 0.5), ("p99", 0.99), ("max", 1.0)] {
        latency(printer, format!("oom kill to file, {name}"), &all, at)?;
    }
    Ok(())
}

fn latency(printer: &mut Printer, name: String, values: &[f64], at: f64) -> Result<()> {
    let figure = Figure::alone(name, quantile(values, at), "ms", values.len());
    printer.print(&figure.better(Better::Lower))
}

fn share(name: String, part: u64, whole: u64) -> Figure {
    let share = 100.0 * float(part) / float(whole);
    let n = usize::try_from(whole).unwrap_or(usize::MAX);
    Figure::alone(name, share, "%", n).better(Better::Higher)
}

#[expect(
    clippy::cast_precision_loss,
    reason = "counts and times of a bench are below 2^52"
)]
fn float(count: u64) -> f64 {
    count as f64
}
