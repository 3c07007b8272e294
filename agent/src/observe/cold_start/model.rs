//! The observation: one cold start, cut into phases.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::observe::identity::Identity;
use crate::time::{Boottime, Nanos};

/// One phase, by the design's word for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PhaseName {
    /// From the request to the opener.
    Fetch,
    /// From the opener to the first execve out of the runtime's own image.
    Create,
    /// From that execve to the last one before ready.
    Wrapper,
    /// From that last execve to `sched_process_exec`.
    Exec,
    /// From `sched_process_exec` to the program's entry.
    Link,
    /// From the entry to the hand-over to user code.
    RuntimeInit,
    /// From the hand-over to ready.
    UserInit,
}

impl PhaseName {
    /// Every phase, in order of time.
    pub const ALL: [Self; 7] = [
        Self::Fetch,
        Self::Create,
        Self::Wrapper,
        Self::Exec,
        Self::Link,
        Self::RuntimeInit,
        Self::UserInit,
    ];

    /// The word used in JSON, metrics and pictures.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Fetch => "fetch",
            Self::Create => "create",
            Self::Wrapper => "wrapper",
            Self::Exec => "exec",
            Self::Link => "link",
            Self::RuntimeInit => "runtime_init",
            Self::UserInit => "user_init",
        }
    }
}

/// How a start ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ready {
    /// First TCP listen.
    Listen,
    /// First accept or blocking poll.
    Accept,
    /// `sd_notify` said `READY=1`.
    Notify,
    /// The Runtime API was asked for the next invocation.
    Next,
    /// The rule's file appeared.
    File,
    /// The rule's uprobe was hit.
    Uprobe,
    /// The program ended before anything else said ready, and the rule takes that as ready.
    Exit,
    /// The program ended, and the rule does not take that as ready.
    Exited,
    /// The deadline passed.
    NotReady,
}

impl Ready {
    /// The word used in JSON, metrics and pictures.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Listen => "listen",
            Self::Accept => "accept",
            Self::Notify => "notify",
            Self::Next => "next",
            Self::File => "file",
            Self::Uprobe => "uprobe",
            Self::Exit => "exit",
            Self::Exited => "exited",
            Self::NotReady => "not_ready",
        }
    }

    /// Whether the start reached its end.
    #[must_use]
    pub const fn is_ready(self) -> bool {
        !matches!(self, Self::Exited | Self::NotReady)
    }
}

/// An interval of work inside a phase. Parts may overlap and never enter a sum.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartSpan {
    /// `cgroup`, `namespaces`, `mounts`, `network`, `held`, `lock`.
    pub name: &'static str,
    /// Thread that did the work.
    pub pid: u32,
    /// From.
    #[serde(rename = "begin_ns")]
    pub begin: Boottime,
    /// To.
    #[serde(rename = "end_ns")]
    pub end: Boottime,
    /// Of `lock`: what was waited for.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub waited: Option<Box<Waited>>,
}

impl PartSpan {
    /// The word that people are shown: a lock by its own name.
    #[must_use]
    pub fn label(&self) -> &'static str {
        self.waited.as_ref().map_or(self.name, |waited| waited.lock)
    }
}

/// What a part `lock` is a wait for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waited {
    /// The lock, by the word of the `cgroup_lock` signal.
    pub lock: &'static str,
    /// What the waiter wanted it for.
    pub operation: &'static str,
    /// Who had it when the wait began; `None` where that is not known, and of a grace period,
    /// which nobody holds.
    pub holder: Option<LockHolder>,
}

/// Who had a lock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockHolder {
    /// Process.
    pub pid: u32,
    /// Its name.
    pub comm: String,
    /// What it had it for, where its acquisition was seen.
    pub operation: Option<&'static str>,
}

/// One phase of one start. `None` is "not measured", never zero.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(bound(deserialize = "'de: 'static"))]
pub struct Phase {
    /// The phase; of merged ones the first.
    pub name: PhaseName,
    /// Every phase that is inside, in order, when a mark between them is missing; else empty.
    pub merged: Vec<PhaseName>,
    /// From.
    #[serde(rename = "begin_ns")]
    pub begin: Boottime,
    /// To; equals the next phase's `begin`.
    #[serde(rename = "end_ns")]
    pub end: Boottime,
    /// Time in which any thread ran.
    pub running_ns: Option<Nanos>,
    /// Time in which none ran and any was runnable.
    pub queued_ns: Option<Nanos>,
    /// Time in which none was runnable and any waited for I/O.
    pub io_ns: Option<Nanos>,
    /// Time in which all waited for something else.
    pub blocked_ns: Option<Nanos>,
    /// Faults served without I/O.
    pub minor_faults: Option<u64>,
    /// Faults that waited for I/O.
    pub major_faults: Option<u64>,
    /// Bytes fetched from storage.
    pub read_bytes: Option<u64>,
    /// Work inside.
    pub parts: Vec<PartSpan>,
}

impl Phase {
    /// Length of the phase.
    #[must_use]
    pub fn duration(&self) -> Nanos {
        self.end.since(self.begin)
    }

    /// `link`, or `link+runtime_init` of a merged phase: the value of the `phase` attribute.
    #[must_use]
    pub fn label(&self) -> String {
        if self.merged.is_empty() {
            return self.name.as_str().to_owned();
        }
        self.merged
            .iter()
            .map(|name| name.as_str())
            .collect::<Vec<_>>()
            .join("+")
    }
}

/// One cold start. Its JSON form is the stable interface described by
/// `docs/schema/cold-start.schema.json`. It is read back from a document that lives as long as the
/// program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ColdStart {
    /// When the opener opened it.
    #[serde(rename = "begin_ns")]
    pub begin: Boottime,
    /// From the opener to ready (or to the end that was not ready).
    pub total_ns: Nanos,
    /// How it ended.
    pub ready: Ready,
    /// Wait status (as of `waitpid`), where the start ended by an exit.
    pub exit_status: Option<i32>,
    /// `trace`, `exec`, `cgroup`, `fork`, `claim`.
    pub opener: &'static str,
    /// Contiguous; they sum to `total_ns`.
    pub phases: Vec<Phase>,
    /// Parts that fell outside of every phase or were made by threads off the chain are
    /// inside the phase that covers their begin; this counts those that were dropped.
    pub parts_dropped: u64,
    /// Who.
    pub identity: Identity,
    /// By mark, the strategy that stamps it on this kernel.
    pub strategies: BTreeMap<String, String>,
    /// Records known to be lost while the start was open.
    pub lost: u64,
}
