//! The probes of the locks alone, and what they have shown so far.

use std::collections::BTreeMap;

use crate::kernel::attach::{HookReport, Reach};
use crate::kernel::cgroup_lock::{LockLimits, LockSnapshot};
use crate::kernel::drain::Events;
use crate::kernel::event::Event;
use crate::kernel::probes::{Probes, Request};
use crate::kernel::table::Signal;
use crate::observe::cgroup_lock::{
    LockReport, StackNames, Wait, Worst, cgroup_lines, cgroups_since, counts_since, lock_lines,
    wait_lines,
};
use crate::observe::identity::{CgroupNames, MemoryHierarchy};
use crate::time::{Boottime, Nanos};

/// Watches the locks from its beginning on.
pub(super) struct Watcher {
    probes: Probes,
    events: Events,
    batch: Vec<Event>,
    names: CgroupNames,
    worst: Worst,
    stacks: StackNames,
    begin: Boottime,
    before: LockSnapshot,
    strategies: BTreeMap<String, String>,
}

impl Watcher {
    /// Attaches the probes; waits from `threshold` on are recorded, and the `worst` kept.
    pub(super) fn start(threshold: Nanos, worst: usize) -> anyhow::Result<Self> {
        let request = Request {
            locks: LockLimits {
                threshold,
                ..LockLimits::default()
            },
            // What is seen by watching the scheduler only is worth it while somebody looks.
            reach: Reach::Trace,
            ..Request::of([Signal::CgroupLock])
        };
        let (mut probes, events) = Probes::start(&request)?;
        // For as long as somebody looks, whatever it costs.
        probes.set_watching(true)?;
        let strategies = probes.strategies();
        if strategies.is_empty() {
            anyhow::bail!(
                "this kernel does not show its cgroup locks: {}; `hearth doctor` says more",
                refusals(probes.report())
            );
        }
        let names = MemoryHierarchy::find().map(CgroupNames::of);
        let before = probes.locks()?.unwrap_or_default();
        Ok(Self {
            strategies,
            probes,
            events,
            batch: Vec::new(),
            names: names.unwrap_or_default(),
            worst: Worst::new(worst),
            stacks: StackNames::default(),
            begin: Boottime::now(),
            before,
        })
    }

    /// Takes in what has come; waits until something has.
    pub(super) async fn take_in(&mut self) {
        self.events.next_batch(&mut self.batch).await;
        self.keep();
    }

    fn keep(&mut self) {
        for event in self.batch.drain(..) {
            // Own work that calibrates the probes ended before the beginning.
            if let Event::LockWait(record) = event
                && record.end_ns >= self.begin.0
                && let Some(wait) = Wait::of(&record)
            {
                self.worst.add(wait);
            }
        }
    }

    /// What was seen so far.
    pub(super) fn report(&mut self) -> anyhow::Result<LockReport> {
        self.events.take(&mut self.batch);
        self.keep();
        let snapshot = self.probes.locks()?.unwrap_or_default();
        let end = Boottime::now();
        let counts = counts_since(&snapshot, &self.before);
        let longest = counts.iter().map(|one| one.wait.max).max();
        let cgroups = cgroups_since(&snapshot, &self.before, longest.unwrap_or_default());
        let (worst, no_stacks) =
            wait_lines(self.worst.waits(), &mut self.names, &mut self.stacks, end);
        Ok(LockReport {
            begin: self.begin,
            end,
            strategies: self.strategies.clone(),
            locks: lock_lines(&counts),
            cgroups: cgroup_lines(&cgroups, &mut self.names, end),
            worst,
            recorded: self.worst.seen(),
            no_stacks,
            lost: self.probes.lost()?,
        })
    }
}

fn refusals(report: &[HookReport]) -> String {
    let refused: Vec<String> = report
        .iter()
        .flat_map(|hook| &hook.refused)
        .map(|refused| format!("not by {}: {}", refused.strategy, refused.reason))
        .collect();
    if refused.is_empty() {
        "there is no way known to see them".to_owned()
    } else {
        refused.join("; ")
    }
}
