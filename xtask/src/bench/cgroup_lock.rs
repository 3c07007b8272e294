//! What watching the locks of cgroups costs those who contend for them.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use hearth_tests::cgroup::Cgroup;
use hearth_tests::programs as made;
use serde::Deserialize;

use super::agent::Agent;
use super::pairs::{self, Precision};
use super::peer::Klockstat;
use super::{Better, Figure, Place, Printer, guest, programs};
use crate::kernels::Kernel;
use crate::program;
use crate::workspace::Workspace;

/// Threads that contend.
const THREADS: &str = "8";

/// One measurement of the throughput.
const SAMPLE: Duration = Duration::from_millis(800);

/// Before a side is measured it runs for this long unmeasured: cgroups of the other side are
/// still being freed.
const WARM_UP: Duration = Duration::from_millis(100);

/// For the agent: what is to be told is a few percent.
const FINE: Precision = Precision {
    half_width: 0.01,
    rounds: (4, 5),
};

/// For the VM, which tells no more than a direction however long it runs.
const COARSE: Precision = Precision {
    half_width: 0.05,
    rounds: (2, 2),
};

const SETTINGS: &str = "signals = [\"cgroup_lock\"]\n";

/// What the threads do.
const STORMS: &[Storm] = &[
    Storm {
        name: "own parents",
        arguments: ["own", "make"],
    },
    Storm {
        name: "shared parent",
        arguments: ["shared", "make"],
    },
    Storm {
        name: "own parents, attach",
        arguments: ["own", "attach"],
    },
    Storm {
        name: "shared parent, attach",
        arguments: ["shared", "attach"],
    },
];

/// How many of these are measured in the VM: an agent takes seconds to start there.
const STORMS_IN_VM: usize = 2;

/// One way to contend.
#[derive(Debug, Clone, Copy)]
struct Storm {
    name: &'static str,
    arguments: [&'static str; 2],
}

/// What a storm says at its end.
#[derive(Debug, Deserialize)]
struct Said {
    cycles: u32,
    begin_ns: u64,
    end_ns: u64,
}

/// Measures the storms on this kernel and in the VM, or only on one.
pub(crate) fn measure(
    workspace: &Workspace,
    agent: &Path,
    only: Option<Place>,
    printer: &mut Printer,
) -> Result<()> {
    ensure!(
        rustix::process::geteuid().is_root(),
        "attaching probes takes root"
    );
    if only != Some(Place::Vm) {
        here(agent, printer)?;
    }
    if only != Some(Place::Here) {
        let klockstat = Klockstat::fetch(workspace)?;
        let files = vec![(klockstat, Klockstat::IN_VM.into())];
        let arguments = ["cgroup-lock", "--only", "here"];
        guest::measure(
            workspace,
            Some(agent),
            Kernel::V6_1,
            &arguments,
            files,
            printer,
        )?;
    }
    Ok(())
}

fn here(agent: &Path, printer: &mut Printer) -> Result<()> {
    let load = Load {
        program: made::c_static("cgroup_storm")?,
        parent: Cgroup::create("storm")?,
    };
    let inside = guest::is_inside();
    let (storms, precision) = if inside {
        (&STORMS[..STORMS_IN_VM], COARSE)
    } else {
        (STORMS, FINE)
    };
    for &storm in storms {
        load.compare(printer, storm, "watched", precision, || {
            Agent::with(agent, SETTINGS)
        })?;
        load.in_probes(printer, storm, agent)?;
        // The host may refuse what the peer needs; the VM has it.
        if inside {
            load.compare(printer, storm, "klockstat", COARSE, Klockstat::start)?;
        }
    }
    Ok(())
}

/// Threads that make and remove cgroups below one that is nobody else's.
struct Load {
    program: PathBuf,
    parent: Cgroup,
}

impl Load {
    /// Throughput of a storm with something attached, against nothing attached.
    fn compare<T>(
        &self,
        printer: &mut Printer,
        storm: Storm,
        side: &str,
        precision: Precision,
        attach: impl Fn() -> Result<T>,
    ) -> Result<()> {
        let beside = || {
            let attached = attach()?;
            let both = [self.sample(storm)?, self.sample(storm)?];
            drop(attached);
            Ok(both)
        };
        let pairs = pairs::measure(precision, || self.sample(storm), beside)?;
        let name = format!("cgroup storm, {}, {side}", storm.name);
        printer.print(&pairs.figure(&name, "cycles/s", "off", Better::Higher))
    }

    /// Time that the kernel spends in the agent's programs for each cgroup made and removed: what
    /// can be told where the throughput is too noisy to.
    fn in_probes(&self, printer: &mut Printer, storm: Storm, agent: &Path) -> Result<()> {
        let agent = Agent::with(agent, SETTINGS)?;
        let counting = programs::Counting::start()?;
        let said = self.run(storm, SAMPLE)?;
        let costs = programs::costs(&agent)?;
        drop(counting);
        let (mut runs, mut time) = (0, Duration::ZERO);
        for (program, (own_runs, own_time)) in costs {
            let name = format!("cgroup storm, {}, in {program}", storm.name);
            printer.print(&per_cycle(name, own_time, said.cycles, own_runs))?;
            (runs, time) = (runs + own_runs, time + own_time);
        }
        let name = format!("cgroup storm, {}, in probes", storm.name);
        printer.print(&per_cycle(name, time, said.cycles, runs))?;
        agent.stop()
    }

    fn sample(&self, storm: Storm) -> Result<f64> {
        self.run(storm, WARM_UP)?;
        let said = self.run(storm, SAMPLE)?;
        let took = Duration::from_nanos(said.end_ns.saturating_sub(said.begin_ns));
        Ok(f64::from(said.cycles) / took.as_secs_f64())
    }

    /// Makes and removes cgroups for this time.
    fn run(&self, storm: Storm, time: Duration) -> Result<Said> {
        let mut command = Command::new(&self.program);
        command
            .arg(&self.parent.directory)
            .args(storm.arguments)
            .args([THREADS, &time.as_millis().to_string()])
            .stderr(Stdio::inherit());
        let said: Said = serde_json::from_str(&program::output(&mut command)?)
            .context("what the storm says of itself")?;
        // The shorter one may make none where processors are emulated.
        ensure!(said.cycles > 0 || time < SAMPLE, "the storm made no cgroup");
        Ok(said)
    }
}

fn per_cycle(name: String, time: Duration, cycles: u32, runs: u64) -> Figure {
    let each = time.as_secs_f64() * 1e6 / f64::from(cycles);
    let n = usize::try_from(runs).unwrap_or(usize::MAX);
    Figure::alone(name, each, "us/cycle", n).better(Better::Lower)
}
