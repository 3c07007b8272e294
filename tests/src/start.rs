//! A cold start as the agent tells it in JSON, and what must hold for every one.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::clock;
use crate::report::Report;

/// The phases in order of time.
pub const PHASES: [&str; 7] = [
    "fetch",
    "create",
    "wrapper",
    "exec",
    "link",
    "runtime_init",
    "user_init",
];

/// One cold start. Fields that the agent adds later are passed over.
#[derive(Clone, Debug, Deserialize)]
#[expect(
    missing_docs,
    reason = "the JSON interface is documented by its schema"
)]
pub struct Start {
    pub begin_ns: u64,
    pub total_ns: u64,
    pub ready: String,
    pub exit_status: Option<i32>,
    pub opener: String,
    pub phases: Vec<Phase>,
    pub identity: Identity,
    pub strategies: BTreeMap<String, String>,
    pub lost: u64,
}

/// One phase.
#[derive(Clone, Debug, Deserialize)]
#[expect(
    missing_docs,
    reason = "the JSON interface is documented by its schema"
)]
pub struct Phase {
    pub name: String,
    pub merged: Vec<String>,
    pub begin_ns: u64,
    pub end_ns: u64,
    pub running_ns: Option<u64>,
    pub queued_ns: Option<u64>,
    pub io_ns: Option<u64>,
    pub blocked_ns: Option<u64>,
    pub minor_faults: Option<u64>,
    pub major_faults: Option<u64>,
    pub read_bytes: Option<u64>,
    pub parts: Vec<Part>,
}

/// An interval of work inside a phase.
#[derive(Clone, Debug, Deserialize)]
#[expect(
    missing_docs,
    reason = "the JSON interface is documented by its schema"
)]
pub struct Part {
    pub name: String,
    pub pid: u32,
    pub begin_ns: u64,
    pub end_ns: u64,
    pub lock: Option<String>,
    pub operation: Option<String>,
    pub holder: Option<LockHolder>,
}

/// Who had a lock.
#[derive(Clone, Debug, Deserialize)]
#[expect(
    missing_docs,
    reason = "the JSON interface is documented by its schema"
)]
pub struct LockHolder {
    pub pid: u32,
    pub comm: String,
    pub operation: Option<String>,
}

/// Who.
#[derive(Clone, Debug, Deserialize)]
#[expect(
    missing_docs,
    reason = "the JSON interface is documented by its schema"
)]
pub struct Identity {
    pub boot_id: String,
    pub pid: u32,
    pub start_boottime_ns: u64,
    pub cgroup_path: Option<String>,
    pub container_id: Option<String>,
    pub unit: Option<String>,
    pub argv0: Option<String>,
    pub exe: Option<String>,
    pub function: Option<String>,
}

impl Identity {
    /// Whether the program was called so: the kernel side keeps 63 bytes of `argv[0]`, and 255
    /// of the file's name.
    #[must_use]
    pub fn is_called(&self, name: &str) -> bool {
        let cut = |limit: usize| name.get(..limit).unwrap_or(name);
        self.argv0.as_deref() == Some(cut(63)) && self.exe.as_deref() == Some(cut(255))
    }
}

impl Phase {
    /// Its length, ns.
    #[must_use]
    pub const fn duration_ns(&self) -> u64 {
        self.end_ns.saturating_sub(self.begin_ns)
    }

    /// Every phase that is inside: itself, or those that were merged.
    #[must_use]
    pub fn names(&self) -> Vec<&str> {
        if self.merged.is_empty() {
            return vec![&self.name];
        }
        self.merged.iter().map(String::as_str).collect()
    }

    /// The split by cause: running, queued, io, blocked.
    pub fn split(&self) -> Result<[u64; 4]> {
        let [Some(running), Some(queued), Some(io), Some(blocked)] =
            [self.running_ns, self.queued_ns, self.io_ns, self.blocked_ns]
        else {
            anyhow::bail!("the causes of {} are not measured: {self:?}", self.name);
        };
        Ok([running, queued, io, blocked])
    }

    /// The parts of one name.
    #[must_use]
    pub fn parts_of(&self, name: &str) -> Vec<&Part> {
        self.parts.iter().filter(|part| part.name == name).collect()
    }
}

impl Start {
    /// The phase of exactly this name, not merged with another.
    pub fn phase(&self, name: &str) -> Result<&Phase> {
        self.phases
            .iter()
            .find(|phase| phase.names() == [name])
            .with_context(|| format!("no phase {name} by itself, but {}", self.outline()))
    }

    /// The phase that has this one inside.
    pub fn phase_with(&self, name: &str) -> Result<&Phase> {
        self.phases
            .iter()
            .find(|phase| phase.names().contains(&name))
            .with_context(|| format!("no phase {name}, but {}", self.outline()))
    }

    /// Whether any phase has this one inside.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.phases
            .iter()
            .any(|phase| phase.names().contains(&name))
    }

    /// All parts of one name.
    #[must_use]
    pub fn parts_of(&self, name: &str) -> Vec<&Part> {
        self.phases
            .iter()
            .flat_map(|phase| phase.parts_of(name))
            .collect()
    }

    /// When it was ready, ns.
    #[must_use]
    pub const fn end_ns(&self) -> u64 {
        self.begin_ns + self.total_ns
    }

    /// The phases in one line.
    #[must_use]
    pub fn outline(&self) -> String {
        let phases = self.phases.iter().map(|phase| {
            format!(
                "{} {} us",
                phase.names().join("+"),
                phase.duration_ns() / 1000
            )
        });
        format!("[{}] {}", phases.collect::<Vec<_>>().join(", "), self.ready)
    }

    /// Who and what in one line.
    #[must_use]
    pub fn line(&self) -> String {
        let identity = &self.identity;
        let name = identity
            .argv0
            .as_deref()
            .or(identity.exe.as_deref())
            .unwrap_or("?");
        format!(
            "{} {name} by {}: {}",
            identity.pid,
            self.opener,
            self.outline()
        )
    }

    /// Fails unless all holds that must hold for every start.
    pub fn is_sound(&self) -> Result<()> {
        self.sound().with_context(|| format!("the start {self:#?}"))
    }

    fn sound(&self) -> Result<()> {
        let first = self.phases.first().context("it has no phases")?;
        let last = self.phases.last().context("it has no phases")?;
        ensure!(
            first.begin_ns == self.begin_ns,
            "the first phase begins elsewhere"
        );
        ensure!(
            last.end_ns == self.end_ns(),
            "the last phase ends elsewhere"
        );
        for pair in self.phases.windows(2) {
            ensure!(
                pair[0].end_ns == pair[1].begin_ns,
                "{} and {} do not touch",
                pair[0].name,
                pair[1].name
            );
        }
        let sum: u64 = self.phases.iter().map(Phase::duration_ns).sum();
        ensure!(sum == self.total_ns, "the phases sum to {sum}");
        let names: Vec<&str> = self.phases.iter().flat_map(Phase::names).collect();
        let places: Option<Vec<usize>> = names
            .iter()
            .map(|name| PHASES.iter().position(|known| known == name))
            .collect();
        let places = places.with_context(|| format!("unknown phase in {names:?}"))?;
        ensure!(
            places.is_sorted_by(|a, b| a < b),
            "the phases are out of order: {names:?}"
        );
        for phase in &self.phases {
            phase_is_sound(phase).with_context(|| format!("phase {}", phase.name))?;
        }
        let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
        ensure!(
            self.identity.boot_id == boot_id.trim(),
            "the boot id is another"
        );
        ensure!(
            self.identity.start_boottime_ns <= self.end_ns(),
            "it started after it was ready"
        );
        Ok(())
    }

    /// Fails unless the start is that of the program that reported, ready when it says.
    /// Order only: a mark comes before the statement after it.
    pub fn agrees(&self, report: &Report) -> Result<()> {
        self.is_sound()?;
        self.in_order(report)
            .with_context(|| format!("{report:?}\nagainst {self:#?}"))
    }

    /// As [`Self::agrees`], and the hand-over to user code was seen.
    pub fn hands_over(&self, report: &Report) -> Result<()> {
        self.agrees(report)?;
        self.phase("user_init")
            .with_context(|| format!("{self:#?}"))?;
        Ok(())
    }

    fn in_order(&self, report: &Report) -> Result<()> {
        self.is_process(report.pid, report.start_ticks)?;
        let ready_ns = self.end_ns();
        if self.ready == "exit" {
            ensure!(
                report.ready_ns <= ready_ns,
                "it ended before its own last clock"
            );
        } else {
            ensure!(report.main_ns <= ready_ns, "ready before user code");
            ensure!(
                ready_ns <= report.ready_ns,
                "ready after its own clock said so"
            );
        }
        if let Ok(user_init) = self.phase("user_init") {
            ensure!(
                user_init.begin_ns <= report.main_ns,
                "user code ran before its hand-over"
            );
        }
        let link = self.phase_with("link")?;
        ensure!(
            link.begin_ns <= report.main_ns,
            "user code ran before its program was in place"
        );
        Ok(())
    }

    /// Fails unless the identity is that of `pid`, started at `ticks` of `/proc/PID/stat`.
    pub fn is_process(&self, pid: u32, ticks: u64) -> Result<()> {
        ensure!(
            self.identity.pid == pid,
            "pid {} instead of {pid}",
            self.identity.pid
        );
        let told = self.identity.start_boottime_ns / clock::tick_ns();
        ensure!(
            told.abs_diff(ticks) <= 1,
            "started at tick {told} instead of {ticks}"
        );
        Ok(())
    }
}

fn phase_is_sound(phase: &Phase) -> Result<()> {
    ensure!(phase.begin_ns <= phase.end_ns, "ends before it begins");
    if !phase.merged.is_empty() {
        ensure!(phase.merged.len() > 1, "merged with nothing");
        ensure!(
            phase.merged[0] == phase.name,
            "a merged phase has the first one's name"
        );
    }
    let causes = [
        phase.running_ns,
        phase.queued_ns,
        phase.io_ns,
        phase.blocked_ns,
    ];
    let sum: u64 = causes.iter().flatten().sum();
    if causes.iter().all(Option::is_some) {
        ensure!(sum == phase.duration_ns(), "its causes sum to {sum}");
    } else {
        ensure!(
            causes == [None, phase.queued_ns, None, None],
            "causes are told in part: {causes:?}"
        );
        ensure!(sum <= phase.duration_ns(), "longer queued than it took");
    }
    for part in &phase.parts {
        ensure!(
            part.begin_ns <= part.end_ns,
            "{part:?} ends before it begins"
        );
        ensure!(
            (phase.begin_ns..=phase.end_ns).contains(&part.begin_ns),
            "{part:?} begins in another phase"
        );
        ensure!(
            ["cgroup", "namespaces", "mounts", "network", "held", "lock"]
                .contains(&part.name.as_str()),
            "unknown {part:?}"
        );
        ensure!(
            (part.name == "lock") == part.lock.is_some(),
            "only what waited for a lock names one: {part:?}"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &str = r#"{"begin_ns":1000,"total_ns":90,"ready":"listen","exit_status":null,
        "opener":"trace","parts_dropped":0,"lost":0,"strategies":{"fork":"tp_btf"},
        "phases":[
          {"name":"create","merged":[],"begin_ns":1000,"end_ns":1010,"running_ns":4,
           "queued_ns":3,"io_ns":2,"blocked_ns":1,"minor_faults":1,"major_faults":0,
           "read_bytes":null,"parts":[{"name":"cgroup","pid":7,"begin_ns":1001,"end_ns":1002}]},
          {"name":"exec","merged":["exec","link"],"begin_ns":1010,"end_ns":1090,
           "running_ns":null,"queued_ns":null,"io_ns":null,"blocked_ns":null,
           "minor_faults":null,"major_faults":null,"read_bytes":null,"parts":[]}],
        "identity":{"boot_id":"BOOT","pid":7,"start_boottime_ns":990,"argv0":"a","exe":null,
          "cgroup_path":null,"container_id":null,"function":null,"unit":null,"later":1}}"#;

    fn sample() -> Result<Start> {
        let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
        Ok(serde_json::from_str(
            &SAMPLE.replace("BOOT", boot_id.trim()),
        )?)
    }

    #[test]
    fn a_sound_start_is_taken() -> Result<()> {
        let start = sample()?;
        start.is_sound()?;
        assert_eq!(start.phase("create")?.split()?, [4, 3, 2, 1]);
        assert!(start.phase("exec").is_err());
        assert_eq!(start.phase_with("link")?.name, "exec");
        assert_eq!(start.parts_of("cgroup").len(), 1);
        Ok(())
    }

    #[test]
    fn an_unsound_start_is_refused() -> Result<()> {
        type Damage = fn(&mut Start);
        let damages: [(&str, Damage); 8] = [
            ("a gap", |s| s.phases[1].begin_ns += 1),
            ("a longer total", |s| s.total_ns += 1),
            ("another begin", |s| s.begin_ns += 1),
            ("causes that do not sum", |s| {
                s.phases[0].running_ns = Some(5);
            }),
            ("causes in part", |s| s.phases[0].io_ns = None),
            ("phases out of order", |s| {
                s.phases[0].name = "user_init".into();
            }),
            ("a part elsewhere", |s| s.phases[0].parts[0].begin_ns = 1),
            ("another boot", |s| s.identity.boot_id.push('0')),
        ];
        for (what, damage) in damages {
            let mut start = sample()?;
            damage(&mut start);
            assert!(start.is_sound().is_err(), "{what}");
        }
        Ok(())
    }
}
