//! Processes that are killed for want of memory, and what they knew of themselves.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use hearth_tests::cgroup::{Cgroup, Hierarchy};
use hearth_tests::clock::boottime_ns;
use hearth_tests::programs;
use serde::Deserialize;

use super::captured::Captured;

/// Limit of each cgroup.
const LIMIT: &str = "16777216";

/// What each victim wants, MiB: more than that.
const WANTED: &str = "24";

/// What one wants that is to use up a node, MiB.
const WANTED_OF_NODE: &str = "65536";

/// How a victim comes to be killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Variant {
    /// It touches a page.
    Fault,
    /// It reads into one.
    Read,
    /// It sleeps while another one of its cgroup touches a page.
    Idle,
    /// It has 100 threads, all but one asleep.
    Threads,
    /// It is a forked child.
    Fork,
    /// It dies with all of its cgroup (`memory.oom.group`).
    Group,
    /// The node itself has no memory left.
    Global,
}

impl Variant {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Fault => "fault",
            Self::Read => "read",
            Self::Idle => "idle",
            Self::Threads => "threads",
            Self::Fork => "fork",
            Self::Group => "group",
            Self::Global => "global",
        }
    }
}

/// What one thread said of itself before it was killed.
#[derive(Debug, Deserialize)]
struct Told {
    pid: u32,
    tid: u32,
    /// The range of its innermost function.
    low: u64,
    high: u64,
    /// Where the functions return to, innermost first.
    returns: Vec<u64>,
}

/// One run of the program, until it was killed.
#[derive(Debug)]
pub(super) struct Killed {
    threads: Vec<Told>,
    begin_ns: u64,
    end_ns: u64,
}

impl Killed {
    /// Whether the capture has, of every thread of this victim's, the frames that it told;
    /// nothing if another one was captured.
    pub(super) fn has_stacks_of(&self, captured: &Captured) -> Option<bool> {
        let own = || self.threads.iter().filter(|told| told.pid == captured.pid);
        let meanwhile = self.begin_ns..self.end_ns;
        (meanwhile.contains(&captured.killed_ns) && own().next().is_some()).then(|| {
            own().all(|told| {
                captured
                    .user_stack(told.tid)
                    .is_some_and(|stack| told.is_stack(&stack))
            })
        })
    }
}

impl Told {
    fn is_stack(&self, stack: &[u64]) -> bool {
        let Some((innermost, above)) = stack.split_first() else {
            return false;
        };
        (self.low..self.high).contains(innermost) && above.starts_with(&self.returns)
    }
}

/// A cgroup for each variant, limited, so that the kernel counts the kills of each.
pub(super) struct Victims {
    program: PathBuf,
    cgroups: BTreeMap<Variant, Cgroup>,
    v2: bool,
    /// Kills of the node before.
    before: u64,
}

impl Victims {
    pub(super) fn new() -> Result<Self> {
        use Variant::{Fault, Fork, Group, Idle, Read, Threads};
        let v2 = Hierarchy::memory()?.v2;
        let mut cgroups = BTreeMap::new();
        for variant in [Fault, Read, Idle, Threads, Fork, Group] {
            if variant == Group && !v2 {
                continue;
            }
            let cgroup = Cgroup::create(variant.name())?;
            let limit = if v2 {
                "memory.max"
            } else {
                "memory.limit_in_bytes"
            };
            fs::write(cgroup.directory.join(limit), LIMIT).context("limit a cgroup")?;
            if variant == Group {
                let group = cgroup.directory.join("memory.oom.group");
                fs::write(group, "1").context("memory.oom.group")?;
            }
            cgroups.insert(variant, cgroup);
        }
        Ok(Self {
            program: programs::c_framed("oom_oracle")?,
            cgroups,
            v2,
            before: of_node()?,
        })
    }

    /// What this node allows; that it runs out of memory itself only where it is `expendable`.
    pub(super) fn variants(&self, expendable: bool) -> Vec<Variant> {
        let mut variants: Vec<_> = self.cgroups.keys().copied().collect();
        if expendable {
            variants.push(Variant::Global);
        }
        variants
    }

    /// The variant whose victims are in this cgroup; those of the node are in none of them.
    pub(super) fn of(&self, cgroup: &str) -> Option<Variant> {
        let mut cgroups = self.cgroups.iter();
        cgroups
            .find(|(_, own)| own.path == cgroup)
            .map(|(variant, _)| *variant)
    }

    /// Runs one until it is killed.
    pub(super) fn kill(&self, variant: Variant) -> Result<Killed> {
        let mut command = Command::new(&self.program);
        match self.cgroups.get(&variant) {
            Some(cgroup) => command
                .arg(&cgroup.directory)
                .args([variant.name(), WANTED]),
            None => command.args(["-", variant.name(), WANTED_OF_NODE]),
        };
        let begin_ns = boottime_ns();
        let output = command
            .stdin(Stdio::null())
            .output()
            .context("run a victim")?;
        let end_ns = boottime_ns();
        let threads = String::from_utf8_lossy(&output.stdout)
            .lines()
            .map(serde_json::from_str)
            .collect::<Result<Vec<Told>, _>>()
            .context("what the victim said")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.code().is_none_or(|code| code == 0) && !threads.is_empty(),
            "the victim ended with {}: {said}",
            output.status
        );
        Ok(Killed {
            threads,
            begin_ns,
            end_ns,
        })
    }

    /// Kills of this variant, by the kernel's own counter.
    pub(super) fn counted(&self, variant: Variant) -> Result<u64> {
        let Some(cgroup) = self.cgroups.get(&variant) else {
            let own = self.cgroups.values();
            let own = own.map(|cgroup| self.events(cgroup, "oom_kill"));
            let own: u64 = own.sum::<Result<u64>>()?;
            return Ok(of_node()?.saturating_sub(self.before + own));
        };
        // The kernel kills the one that it chose, and then all of the group, that one again.
        let twice = match variant {
            Variant::Group => self.events(cgroup, "oom_group_kill")?,
            _ => 0,
        };
        Ok(self.events(cgroup, "oom_kill")?.saturating_sub(twice))
    }

    fn events(&self, cgroup: &Cgroup, name: &str) -> Result<u64> {
        let file = if self.v2 {
            "memory.events"
        } else {
            "memory.oom_control"
        };
        counter(&cgroup.directory.join(file), name)
    }
}

fn of_node() -> Result<u64> {
    counter(Path::new("/proc/vmstat"), "oom_kill")
}

fn counter(file: &Path, name: &str) -> Result<u64> {
    let text = fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
    text.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
        .with_context(|| format!("{} has no {name}", file.display()))
}
