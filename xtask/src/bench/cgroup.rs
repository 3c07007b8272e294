//! The time that cgroups take on the path of a request.
//!
//! One operation of each side, all of them with the same limits (memory, processor, processes),
//! in the same hierarchies, with a process that was started before:
//!
//! - *claim*, ours: a slot that is ready, with a process in it, gets its limits through files that
//!   are open, each written and read back. Slots are cleaned and made between the measurements, as
//!   the spawner does between requests; what that takes is a figure of its own.
//! - *mkdir*: a directory is made in every hierarchy, each file of a limit is opened, written and
//!   closed, nothing is read back, and the process is written to each `cgroup.procs`.
//! - *rename*, v1 only: as `RunD` does it, a cgroup from a pool is renamed to its sandbox in every
//!   v1 hierarchy, then configured and the process attached as above. v2, the twin of a hybrid host
//!   too, cannot rename, and is left out.
//!
//! Every thread has its own slots, so that what is compared is the kernel's work and who waits for
//! whom in it. *Claim by one* is what a request sees of it: the spawner is one thread, which is
//! asked and answers; the wait for its turn is in the time. The other sides have no such thread.
//!
//! Meanwhile there are as many cgroups of other sandboxes as the figure says, each with a process
//! that sleeps.

mod node;
mod phase;
mod plain;
mod sides;

use anyhow::{Result, ensure};

use super::pairs::{self, Precision};
use super::{Better, Figure, Place, Printer, guest};
use crate::kernels::Kernel;
use crate::workspace::Workspace;

use node::Node;
use phase::Times;
use sides::{Claim, ClaimByOne, Mkdir, Rename, Side};

/// Everything that is measured lies below cgroups of this name.
const SUBTREE: &str = "hearth-bench-cgroup";

/// The limits of all sides, in bytes, microseconds, and processes.
const MEMORY: u64 = 128 << 20;
const CPU_QUOTA_US: u64 = 100_000;
const PERIOD_US: u64 = 100_000;
const PIDS: u32 = 64;

/// For this kernel: the claim is of a factor.
const FINE: Precision = Precision {
    half_width: 0.005,
    rounds: (3, 6),
};

/// For the VM, which tells no more than a direction however long it runs.
const COARSE: Precision = Precision {
    half_width: 0.05,
    rounds: (2, 2),
};

/// How much is measured.
struct Load {
    /// Cgroups of other sandboxes.
    others: usize,
    /// Threads, and how many operations each does in one measurement: as many slots as both
    /// together are open at once.
    threads: &'static [(usize, usize)],
    precision: Precision,
}

const HERE: Load = Load {
    others: 2000,
    threads: &[(1, 200), (10, 20), (200, 3)],
    precision: FINE,
};

const IN_VM: Load = Load {
    others: 2000,
    threads: &[(1, 50), (10, 10), (200, 1)],
    precision: COARSE,
};

/// Measures on this kernel and in the VM, or only on one.
pub(crate) fn measure(
    workspace: &Workspace,
    only: Option<Place>,
    printer: &mut Printer,
) -> Result<()> {
    ensure!(
        rustix::process::geteuid().is_root(),
        "making cgroups takes root"
    );
    if only != Some(Place::Vm) {
        let load = if guest::is_inside() { IN_VM } else { HERE };
        here(&load, printer)?;
    }
    if only != Some(Place::Here) {
        let arguments = ["cgroup", "--only", "here"];
        guest::measure(
            workspace,
            None,
            Kernel::V6_12,
            &arguments,
            Vec::new(),
            printer,
        )?;
    }
    Ok(())
}

fn here(load: &Load, printer: &mut Printer) -> Result<()> {
    let node = Node::new(load.others)?;
    for &(threads, turns) in load.threads {
        let of = Comparison {
            load,
            threads,
            turns,
        };
        let mut claim = Claim::new(&node, threads, turns)?;
        let mut mkdir = Mkdir::new(&node, threads, turns)?;
        of.tell(printer, "claim", &mut claim, &mut mkdir)?;
        if let Some(v1) = node.plain.v1() {
            let mut rename = Rename::new(&node, v1, threads, turns)?;
            of.tell(printer, "claim", &mut claim, &mut rename)?;
        } else if threads == 1 {
            eprintln!("no figure against rename: cgroup v2 cannot rename");
        }
        printer.print(&of.refill(&mut claim)?)?;
        drop(claim);
        let mut claim = ClaimByOne::new(&node, threads, turns)?;
        of.tell(printer, "claim by one", &mut claim, &mut mkdir)?;
    }
    node.close()
}

struct Comparison<'a> {
    load: &'a Load,
    threads: usize,
    turns: usize,
}

impl Comparison<'_> {
    fn tell<P: Side>(
        &self,
        printer: &mut Printer,
        name: &str,
        ours: &mut impl Side,
        peer: &mut P,
    ) -> Result<()> {
        // Both once before anything counts.
        self.times(ours)?;
        self.times(peer)?;
        let quantiles = pairs::measure_several(
            self.load.precision,
            || self.times(peer),
            || Ok([self.times(ours)?, self.times(ours)?]),
        )?;
        for (pairs, quantile) in quantiles.iter().zip(["p50", "p99", "mean"]) {
            let name = self.name(&format!("{name}, {quantile}"));
            printer.print(&pairs.figure(&name, "us", P::NAME, Better::Lower))?;
        }
        Ok(())
    }

    /// 50th and 99th percentile and mean of one measurement. Of many threads the mean tells most:
    /// who has a processor is served at once, and all others wait.
    fn times(&self, side: &mut impl Side) -> Result<[f64; 3]> {
        let Times(times) = side.measure(self.turns)?;
        let [p50, p99] = [0.5, 0.99].map(|share| pairs::quantile(&times, share));
        Ok([p50, p99, pairs::mean(&times)])
    }

    /// What is not on the path of a request.
    fn refill(&self, claim: &mut Claim<'_>) -> Result<Figure> {
        let (each, count) = claim.refill()?;
        let name = self.name("slot made ready again, mean");
        let each = each.as_secs_f64() * 1e6;
        Ok(Figure::alone(name, each, "us", usize::try_from(count)?).better(Better::Lower))
    }

    fn name(&self, what: &str) -> String {
        let s = if self.threads == 1 { "" } else { "s" };
        format!(
            "cgroups, {} others, {} thread{s}: {what}",
            self.load.others, self.threads
        )
    }
}
