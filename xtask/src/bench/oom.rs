//! Whether every kill for want of memory is captured, how completely, and how soon.

mod arrivals;
mod captured;
mod victims;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;

use super::agent::Agent;
use super::pairs::quantile;
use super::{Better, Figure, Place, Printer, guest};
use crate::kernels::Kernel;
use crate::workspace::Workspace;
use arrivals::Arrivals;
use captured::Captured;
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
    captures: Vec<Captured>,
    /// Captures whose every thread that the program told of has the stack that it told.
    same_stacks: usize,
    /// From each kill to its file, ms.
    latencies: Vec<f64>,
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
            agent,
            Kernel::V6_1,
            &arguments,
            Vec::new(),
            printer,
        )?;
    }
    Ok(())
}

fn here(agent: &Path, count: u32, printer: &mut Printer) -> Result<()> {
    let folder = TempDir::with_prefix("hearth-bench-").context("make a folder")?;
    let dir = folder.path().join("captures");
    // Now, so that it can be watched before the agent is there.
    fs::DirBuilder::new()
        .mode(0o700)
        .create(&dir)
        .context("make a folder for captures")?;
    let arrivals = Arrivals::watch(&dir)?;
    let settings = format!(
        "signals = [\"oom\"]\n[oom]\ndir = \"{}\"\nmax_captures = 1000000\nmax_bytes = \"8GiB\"\n",
        dir.display()
    );
    let agent = Agent::with(agent, &settings)?;
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
    let outcomes = outcomes(&victims, &killed, &arrivals, &dir)?;
    tell(printer, &outcomes, &agent)?;
    agent.stop()
}

/// Waits for the captures, and lays them beside what was killed.
fn outcomes(
    victims: &Victims,
    killed: &BTreeMap<Variant, Vec<Killed>>,
    arrivals: &Arrivals,
    dir: &Path,
) -> Result<BTreeMap<Variant, Outcome>> {
    let mut outcomes: BTreeMap<Variant, Outcome> = BTreeMap::new();
    for &variant in killed.keys() {
        outcomes.entry(variant).or_default().kills = victims.counted(variant)?;
    }
    let expected: u64 = outcomes.values().map(|outcome| outcome.kills).sum();
    let deadline = Instant::now() + PATIENCE;
    while (arrivals.count() as u64) < expected && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(50));
    }
    for (file, arrived_ns) in arrivals.so_far() {
        let captured =
            Captured::read(&dir.join(&file)).with_context(|| format!("the capture {file}"))?;
        let of_whom = killed.iter().find_map(|(variant, killed)| {
            let one = killed.iter().find(|one| one.is(&captured))?;
            Some((*variant, one))
        });
        // Others on this machine may run out of memory too.
        let Some((variant, one)) = of_whom else {
            continue;
        };
        let outcome = outcomes.entry(variant).or_default();
        outcome.same_stacks += usize::from(one.has_stacks_of(&captured));
        outcome
            .latencies
            .push(millis(arrived_ns.saturating_sub(captured.killed_ns)));
        outcome.captures.push(captured);
    }
    Ok(outcomes)
}

fn tell(printer: &mut Printer, outcomes: &BTreeMap<Variant, Outcome>, agent: &Agent) -> Result<()> {
    for (variant, outcome) in outcomes {
        let captures = outcome.captures.len();
        let name = format!("oom captures, {}", variant.name());
        printer.print(&Figure {
            peer: Some("kills".into()),
            peer_value: Some(float(outcome.kills)),
            ratio: Some(float(captures as u64) / float(outcome.kills)),
            ..Figure::alone(name, float(captures as u64), "captures", captures)
                .better(Better::Higher)
        })?;
        let name = format!("oom user stacks as the program's, {}", variant.name());
        printer.print(&share(name, outcome.same_stacks, captures))?;
    }
    printer.print(
        &Figure::alone("oom events lost", agent.lost()?, "events", 1).better(Better::Lower),
    )?;
    let captures: Vec<_> = outcomes
        .values()
        .flat_map(|outcome| &outcome.captures)
        .collect();
    for (field, had) in captured::fields(&captures) {
        let why = had
            .reason
            .map_or_else(String::new, |why| format!(", else {why}"));
        printer.print(&share(
            format!("oom field {field}{why}"),
            had.present,
            had.asked,
        ))?;
    }
    let latencies: Vec<_> = outcomes
        .values()
        .flat_map(|outcome| outcome.latencies.iter().copied())
        .collect();
    for (variant, outcome) in outcomes {
        let name = format!("oom kill to file, {}, p50", variant.name());
        let (value, n) = (quantile(&outcome.latencies, 0.5), outcome.latencies.len());
        printer.print(&Figure::alone(name, value, "ms", n).better(Better::Lower))?;
    }
    for (name, at) in [("p50", 0.5), ("p99", 0.99), ("max", 1.0)] {
        let name = format!("oom kill to file, {name}");
        let value = quantile(&latencies, at);
        printer.print(&Figure::alone(name, value, "ms", latencies.len()).better(Better::Lower))?;
    }
    Ok(())
}

fn share(name: String, part: usize, whole: usize) -> Figure {
    let share = 100.0 * float(part as u64) / float(whole as u64);
    Figure::alone(name, share, "%", whole).better(Better::Higher)
}

fn millis(ns: u64) -> f64 {
    float(ns) / 1e6
}

#[expect(
    clippy::cast_precision_loss,
    reason = "counts and times of a bench are below 2^52"
)]
fn float(count: u64) -> f64 {
    count as f64
}
