//! What watching every start costs, and how exact its boundaries are.

use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use clap::ValueEnum;
use hearth_tests::programs as oracles;

use super::agent::{Agent, Set};
use super::pairs::{self, Precision};
use super::peer::Bpftrace;
use super::spawn_loop::throughput;
use super::{Better, Figure, Printer, boundaries, programs};

/// One measurement of the throughput.
const SAMPLE: Duration = Duration::from_secs(1);

/// Before a side is measured it runs for this long unmeasured.
const WARM_UP: Duration = Duration::from_millis(200);

/// How long an idle agent is watched.
const IDLE: Duration = Duration::from_secs(10);

/// For the claim of at most 1 %.
const FINE: Precision = Precision {
    half_width: 0.003,
    rounds: (4, 30),
};

/// For what costs several percent.
const COARSE: Precision = Precision {
    half_width: 0.01,
    rounds: (3, 12),
};

/// Figures that are measured together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Group {
    /// Fork+exec with each set, against off and against bpftrace.
    Throughput,
    /// Memory, processor and losses of the agent, idle and under load.
    Agent,
    /// Time of one run of each program in the kernel.
    Programs,
    /// Distance of the boundaries from the programs' own clocks, by language.
    Boundaries,
}

const SETS: [(Set, &str); 2] = [(Set::AlwaysOn, "always-on set"), (Set::Watch, "watch set")];

/// Measures all groups of figures, or only one.
pub(crate) fn measure(agent: &Path, only: Option<Group>, printer: &mut Printer) -> Result<()> {
    ensure!(
        rustix::process::geteuid().is_root(),
        "attaching probes takes root"
    );
    let load = Load {
        program: oracles::c_static("nothing")?,
    };
    let groups = Group::value_variants().iter();
    for group in groups.filter(|group| only.is_none_or(|only| only == **group)) {
        match group {
            Group::Throughput => load.throughput(printer, agent)?,
            Group::Agent => SETS
                .iter()
                .try_for_each(|&(set, name)| load.resources(printer, agent, set, name))?,
            Group::Programs => SETS
                .iter()
                .try_for_each(|&(set, name)| load.programs(printer, agent, set, name))?,
            Group::Boundaries => boundaries::measure(printer)?,
        }
    }
    Ok(())
}

/// Nothing but starts of the smallest program.
struct Load {
    program: PathBuf,
}

impl Load {
    fn sample(&self) -> Result<f64> {
        throughput(&self.program, WARM_UP)?;
        throughput(&self.program, SAMPLE)
    }

    fn throughput(&self, printer: &mut Printer, agent: &Path) -> Result<()> {
        self.compare(printer, "always-on set", FINE, || {
            Agent::start(agent, Set::AlwaysOn)
        })?;
        self.compare(printer, "watch set", COARSE, || {
            Agent::start(agent, Set::Watch)
        })?;
        self.compare(printer, "bpftrace", COARSE, Bpftrace::start)?;
        self.against_bpftrace(printer, agent)
    }

    /// Throughput with something attached, against nothing attached.
    fn compare<T>(
        &self,
        printer: &mut Printer,
        name: &str,
        precision: Precision,
        attach: impl Fn() -> Result<T>,
    ) -> Result<()> {
        let with = || {
            let attached = attach()?;
            let both = [self.sample()?, self.sample()?];
            drop(attached);
            Ok(both)
        };
        let pairs = pairs::measure(precision, || self.sample(), with)?;
        let name = format!("fork+exec throughput, {name}");
        printer.print(&pairs.figure(&name, "starts/s", "off", Better::Higher))
    }

    /// Throughput beside the agent, against that beside bpftrace printing execs.
    fn against_bpftrace(&self, printer: &mut Printer, agent: &Path) -> Result<()> {
        let beside_peer = || {
            let _peer = Bpftrace::start()?;
            self.sample()
        };
        let beside_agent = || {
            let _agent = Agent::start(agent, Set::AlwaysOn)?;
            Ok([self.sample()?, self.sample()?])
        };
        let pairs = pairs::measure(COARSE, beside_peer, beside_agent)?;
        let name = "fork+exec throughput, always-on set";
        printer.print(&pairs.figure(name, "starts/s", "bpftrace", Better::Higher))
    }

    /// Memory and processor of the agent, idle and under this load, and what it lost.
    fn resources(&self, printer: &mut Printer, agent: &Path, set: Set, name: &str) -> Result<()> {
        let agent = Agent::start(agent, set)?;
        let mut tell = |state: &str, processor: f64, agent: &Agent| -> Result<()> {
            let figure = format!("agent processor, {name}, {state}");
            printer.print(
                &Figure::alone(figure, processor * 100.0, "% core", 1).better(Better::Lower),
            )?;
            let figure = format!("agent Pss, {name}, {state}");
            printer.print(&Figure::alone(figure, agent.pss()?, "MiB", 1).better(Better::Lower))
        };
        let idle = share(&agent, || {
            thread::sleep(IDLE);
            Ok(())
        })?;
        tell("idle", idle, &agent)?;
        let loaded = share(&agent, || self.sample().map(drop))?;
        tell("under load", loaded, &agent)?;
        // The counts of the last starts are told within a second.
        thread::sleep(Duration::from_secs(2));
        let lost = agent.lost()?;
        let figure = format!("events lost, {name}, under load");
        printer.print(&Figure::alone(figure, lost, "events", 1).better(Better::Lower))?;
        agent.stop()
    }

    /// Mean time of one run of each program.
    fn programs(&self, printer: &mut Printer, agent: &Path, set: Set, name: &str) -> Result<()> {
        let agent = Agent::start(agent, set)?;
        let counting = programs::Counting::start()?;
        self.sample()?;
        let costs = programs::costs(&agent)?;
        drop(counting);
        for (program, (runs, time)) in costs {
            let each = time.as_secs_f64() * 1e9 / runs_as_float(runs);
            let figure = format!("program {program}, {name}");
            let n = usize::try_from(runs).unwrap_or(usize::MAX);
            printer.print(&Figure::alone(figure, each, "ns/run", n).better(Better::Lower))?;
        }
        agent.stop()
    }
}

/// The part of one processor that the agent used meanwhile.
fn share(agent: &Agent, meanwhile: impl FnOnce() -> Result<()>) -> Result<f64> {
    let (begin, before) = (Instant::now(), agent.processor_seconds()?);
    meanwhile()?;
    Ok((agent.processor_seconds()? - before) / begin.elapsed().as_secs_f64())
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a count of runs is far below 2^52"
)]
fn runs_as_float(runs: u64) -> f64 {
    runs as f64
}
