//! A slot that was taken from the pool.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::apply::Files;
use super::error::Result;
use super::group::Cgroup;
use super::limits::{Limits, Report};
use super::usage::{self, Usage};

/// A cgroup of the pool, and where its counters stood when it was clean.
#[derive(Debug)]
pub struct Slot {
    /// The cgroup.
    pub cgroup: Cgroup,
    /// What became of the limits.
    pub limits: Report,
    pub(super) files: Files,
    before: Usage,
}

/// Where the counters of a slot stood that are told of at its user's end: to be written down for
/// who looks after the slot next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Baseline {
    /// Processes that were killed for want of memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oom_kills: Option<u64>,
    /// The most memory that there ever was, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_bytes: Option<u64>,
    /// Processor time, in microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_us: Option<u64>,
}

impl Slot {
    /// With all opened and read that a claim shall not wait for.
    pub(super) fn prepare(cgroup: &Cgroup) -> Result<(Files, Usage)> {
        Ok((Files::open(cgroup)?, cgroup.usage()?))
    }

    pub(super) fn new(cgroup: Cgroup, (files, before): (Files, Usage)) -> Self {
        Self {
            cgroup,
            limits: Report::default(),
            files,
            before,
        }
    }

    /// One that somebody else has taken and looked after until now.
    #[must_use]
    pub fn adopt(cgroup: Cgroup, before: Baseline) -> Self {
        let before = Usage {
            memory: Some(usage::Memory {
                oom_kills: before.oom_kills,
                peak: before.peak_bytes,
                ..usage::Memory::default()
            }),
            cpu: usage::Cpu {
                used: before.cpu_us.map(Duration::from_micros),
                ..usage::Cpu::default()
            },
            ..Usage::default()
        };
        Self::new(cgroup, (Files::default(), before))
    }

    /// Sets limits through the files that are open, and reads them back.
    pub fn limit(&mut self, limits: &Limits) -> Result<()> {
        // A hierarchy that no limit is written to may be the one in which it was removed.
        if !self.cgroup.is_there() {
            return Err(self.cgroup.gone());
        }
        self.limits = self.cgroup.apply_through(limits, &mut self.files)?;
        Ok(())
    }

    /// Closes the files of limits: none will be set any more.
    pub fn close_files(&mut self) {
        self.files = Files::default();
    }

    /// Counts from now on. What was parked in it before belongs to nobody.
    pub fn count_anew(&mut self) -> Result<()> {
        self.cgroup.forget_peak()?;
        self.before = self.cgroup.usage()?;
        Ok(())
    }

    /// What has been used since it was clean, or [counted anew](Self::count_anew).
    pub fn usage(&self) -> Result<Usage> {
        Ok(self.cgroup.usage()?.since(&self.before))
    }

    /// From where it is counted.
    #[must_use]
    pub fn baseline(&self) -> Baseline {
        let memory = self.before.memory.as_ref();
        Baseline {
            oom_kills: memory.and_then(|memory| memory.oom_kills),
            peak_bytes: memory.and_then(|memory| memory.peak),
            cpu_us: self
                .before
                .cpu
                .used
                .map(|used| u64::try_from(used.as_micros()).unwrap_or(u64::MAX)),
        }
    }
}
