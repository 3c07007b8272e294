//! `hearth doctor`: what this kernel gives, by which strategy, and why not by a better one.

use std::fmt::Write as _;

use clap::Args;
use serde::Serialize;

use super::terminal::wrap;
use crate::kernel::{
    attach::HookReport,
    btf::Btf,
    capability::Capability,
    cgroup_lock::{Known, LockAddress, LockLimits},
    offsets,
    probes::{Probes, ProbesError, Request},
    table::Signal,
};
use crate::observe::cgroup_lock::{CgroupNode, Hierarchy};

/// Columns of what the node could do.
const ADVICE_WIDTH: usize = 96;

/// What `--help` says of it.
pub(super) const HELP: &str = "\
Show what this kernel lets hearth see, how exactly, and why not better.

Loads every probe for a moment, attaches it, and detaches it again. Exits with 1 when
starts cannot be observed here.";

/// Show what this kernel lets hearth see, how exactly, and why not better.
#[derive(Debug, Args)]
pub struct Doctor {
    /// One JSON object instead of tables.
    #[arg(long)]
    json: bool,
    /// Find `cgroup_mutex` by contending for it even where the kernel names its address.
    #[arg(long, hide = true)]
    calibrate: bool,
}

/// The findings; the JSON form is its serialisation.
#[derive(Debug, Serialize)]
pub struct Findings {
    /// Version of hearth.
    pub version: &'static str,
    /// Kernel and process.
    pub capability: Capability,
    /// Whether starts can be observed.
    pub healthy: bool,
    /// Why not.
    pub error: Option<String>,
    /// One a kind.
    pub hooks: Vec<HookReport>,
    /// Members that the programs read and this kernel lacks.
    pub absent_members: Vec<&'static str>,
    /// What bears on contention for the cgroup locks.
    pub cgroups: CgroupNode,
    /// Locks whose address is known, and how.
    pub lock_addresses: Vec<LockAddress>,
    /// Why `cgroup_mutex` could not be found by contending for it.
    pub calibration_error: Option<String>,
}

impl Doctor {
    /// Runs it.
    pub fn run(&self) -> anyhow::Result<()> {
        let findings = Findings::gather(self.calibrate);
        if self.json {
            println!("{}", serde_json::to_string(&findings)?);
        } else {
            print!("{}", findings.table());
        }
        if findings.healthy {
            Ok(())
        } else {
            anyhow::bail!("starts cannot be observed on this node")
        }
    }
}

impl Findings {
    /// Loads the probes and looks.
    #[must_use]
    pub fn gather(calibrate: bool) -> Self {
        let capability = Capability::detect();
        let absent_members = Btf::of_running_kernel()
            .map(|types| offsets::absent(&offsets::of(&types)))
            .unwrap_or_default();
        let request = Request {
            every_exec: true,
            cgroup_opens: true,
            ready_kinds: vec!["accept", "message", "file", "uprobe"],
            locks: LockLimits {
                calibrate,
                ..LockLimits::default()
            },
            ..Request::of(Signal::ALL)
        };
        let mut lock_addresses = Vec::new();
        let mut calibration_error = None;
        let (hooks, error) = match Probes::start(&request) {
            Ok((probes, _events)) => {
                lock_addresses = probes.lock_addresses().to_vec();
                calibration_error = probes.lock_calibration_error().map(str::to_owned);
                (probes.report().to_vec(), None)
            }
            Err(error) => (hooks_of(&error), Some(error.to_string())),
        };
        Self {
            version: env!("CARGO_PKG_VERSION"),
            capability,
            healthy: error.is_none(),
            error,
            hooks,
            absent_members,
            cgroups: CgroupNode::detect(),
            lock_addresses,
            calibration_error,
        }
    }

    /// For people.
    #[must_use]
    pub fn table(&self) -> String {
        let mut out = String::new();
        let facts = &self.capability;
        // Writing to a string cannot fail.
        let _ = writeln!(out, "hearth {} on Linux {}", self.version, facts.kernel);
        let yes = |is| if is { "yes" } else { "no" };
        let _ = writeln!(out, "  kernel types (BTF)  {}", yes(facts.has_btf));
        let _ = writeln!(out, "  kprobes             {}", yes(facts.has_kprobes));
        let lockdown = facts
            .lockdown
            .as_deref()
            .unwrap_or("not known (securityfs is not mounted)");
        let _ = writeln!(out, "  lockdown            {lockdown}");
        let hierarchy = facts.memory_hierarchy.unwrap_or("none");
        let _ = writeln!(out, "  memory controller   cgroup {hierarchy}");
        let missing = if facts.missing_capabilities.is_empty() {
            "none".to_owned()
        } else {
            facts.missing_capabilities.join(", ")
        };
        let _ = writeln!(out, "  capabilities missing {missing}");
        if !self.absent_members.is_empty() {
            let _ = writeln!(
                out,
                "  members absent      {}",
                self.absent_members.join(", ")
            );
        }
        let _ = writeln!(out, "  cgroup_mutex        {}", self.mutex());
        cgroups(&mut out, &self.cgroups);
        if let Some(error) = &self.error {
            let _ = writeln!(out, "\nNot observable: {error}");
        }
        let rows: Vec<[String; 4]> = self.hooks.iter().map(row).collect();
        if !rows.is_empty() {
            let head = ["KIND", "ALWAYS", "WHILE WATCHING", "LATE BY AT MOST"].map(str::to_owned);
            let mut widths = head.each_ref().map(String::len);
            for row in &rows {
                for (width, cell) in widths.iter_mut().zip(row) {
                    *width = (*width).max(cell.len());
                }
            }
            let _ = writeln!(out);
            line(&mut out, &head, widths, "FOR");
            for (row, hook) in rows.iter().zip(&self.hooks) {
                line(&mut out, row, widths, hook.purpose);
                if !hook.note.is_empty() {
                    let _ = writeln!(out, "    {}", hook.note);
                }
                for refused in &hook.refused {
                    let _ = writeln!(out, "    not {}: {}", refused.strategy, refused.reason);
                }
            }
        }
        out
    }
}

impl Findings {
    /// How it is known which lock `cgroup_mutex` is.
    fn mutex(&self) -> String {
        let known = |how| {
            self.lock_addresses
                .iter()
                .any(|lock| lock.lock == "cgroup_mutex" && lock.known == how)
        };
        if known(Known::Symbol) {
            "known by its symbol".to_owned()
        } else if known(Known::Calibration) {
            "known by calibration: own work contended for it".to_owned()
        } else {
            let why = self.calibration_error.as_deref();
            why.map_or_else(
                || "not known: nothing is attached".to_owned(),
                |why| format!("not known until somebody waits for it: {why}"),
            )
        }
    }
}

/// What the node has of cgroups, and what it could do about contention.
fn cgroups(out: &mut String, node: &CgroupNode) {
    let on = if node.favordynmods() { "on" } else { "off" };
    let _ = writeln!(out, "  favordynmods        {on}");
    for hierarchy in &node.hierarchies {
        let Hierarchy {
            mount,
            version,
            controllers,
            live,
            dying,
            ..
        } = hierarchy;
        let known = |count: &Option<u64>| count.map_or("?".to_owned(), |count| count.to_string());
        let controllers = if controllers.is_empty() {
            "no controllers".to_owned()
        } else {
            controllers.join(",")
        };
        let _ = writeln!(
            out,
            "  cgroup v{version}           {} live, {} dying  {controllers}  {}",
            known(live),
            known(dying),
            mount.display()
        );
    }
    for advice in &node.advice {
        for line in wrap(advice, ADVICE_WIDTH, "    ") {
            let _ = writeln!(out, "{line}");
        }
    }
}

fn hooks_of(error: &ProbesError) -> Vec<HookReport> {
    match error {
        ProbesError::Required { report, .. } => report.clone(),
        _ => Vec::new(),
    }
}

fn row(hook: &HookReport) -> [String; 4] {
    let or_dash = |strategy: Option<&str>| strategy.unwrap_or("-").to_owned();
    let late = match (hook.error_ns, hook.strategy.or(hook.while_watching)) {
        (_, None) => "-".to_owned(),
        (None, _) => "by program".to_owned(),
        (Some(0), _) => "0".to_owned(),
        (Some(ns), _) if ns < 1000 => format!("{ns} ns"),
        (Some(ns), _) => format!("{} µs", ns / 1000),
    };
    [
        hook.kind.to_owned(),
        or_dash(hook.strategy),
        or_dash(hook.while_watching),
        late,
    ]
}

fn line(out: &mut String, cells: &[String; 4], widths: [usize; 4], last: &str) {
    for (cell, width) in cells.iter().zip(widths) {
        let _ = write!(out, "{cell:width$}  ");
    }
    let _ = writeln!(out, "{last}");
}
