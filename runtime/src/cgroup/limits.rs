//! What a sandbox may use, checked before the kernel is asked.

use std::fmt;

use super::error::{Error, Result};

/// One thing that can be limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Setting {
    /// Memory, page cache included.
    Memory,
    /// Memory above which processes are slowed and pages taken back.
    MemoryHigh,
    /// Swap.
    Swap,
    /// Processor time.
    Cpu,
    /// Processes and threads.
    Pids,
    /// Share of the block devices, against others.
    IoWeight,
    /// Whether all die when one is killed for want of memory.
    OomGroup,
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Memory => "memory",
            Self::MemoryHigh => "memory_high",
            Self::Swap => "swap",
            Self::Cpu => "cpu",
            Self::Pids => "pids",
            Self::IoWeight => "io_weight",
            Self::OomGroup => "oom_group",
        })
    }
}

fn refuse<T>(setting: Setting, value: impl fmt::Display, remedy: &'static str) -> Result<T> {
    Err(Error::Limit {
        setting,
        value: value.to_string(),
        remedy,
    })
}

/// Bytes of memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Memory(u64);

impl Memory {
    /// Least memory with which a process starts at all.
    pub const LEAST: u64 = 1 << 20;

    /// Bytes, at least [`Self::LEAST`].
    pub fn new(bytes: u64) -> Result<Self> {
        Self::of(Setting::Memory, bytes)
    }

    fn of(setting: Setting, bytes: u64) -> Result<Self> {
        if bytes < Self::LEAST {
            return refuse(
                setting,
                bytes,
                "no process starts with less than 1048576 bytes (1 MiB)",
            );
        }
        if bytes > i64::MAX as u64 {
            return refuse(
                setting,
                bytes,
                "more than there can be: use less than 8 EiB",
            );
        }
        Ok(Self(bytes))
    }

    /// In bytes.
    #[must_use]
    pub fn bytes(self) -> u64 {
        self.0
    }

    /// Where processes are slowed by default: at 7/8.
    #[must_use]
    pub fn high(self) -> u64 {
        self.0 / 8 * 7
    }
}

/// Processor time within each period.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cpu {
    quota_us: u64,
    period_us: u64,
}

impl Cpu {
    /// Microseconds of processor time in every period of so many microseconds.
    pub fn new(quota_us: u64, period_us: u64) -> Result<Self> {
        if !(1_000..=1_000_000).contains(&period_us) {
            return refuse(
                Setting::Cpu,
                period_us,
                "the kernel takes periods of 1000 to 1000000 us",
            );
        }
        if !(1_000..=1_000_000_000).contains(&quota_us) {
            return refuse(
                Setting::Cpu,
                quota_us,
                "use a quota of 1000 to 1000000000 us",
            );
        }
        Ok(Self {
            quota_us,
            period_us,
        })
    }

    /// Thousandths of a processor, in periods of 100 ms.
    pub fn millicores(millicores: u32) -> Result<Self> {
        if !(10..=10_000_000).contains(&millicores) {
            return refuse(
                Setting::Cpu,
                millicores,
                "use 10 to 10000000 thousandths of a processor",
            );
        }
        Self::new(u64::from(millicores) * 100, 100_000)
    }

    pub(super) fn quota_us(self) -> u64 {
        self.quota_us
    }

    pub(super) fn period_us(self) -> u64 {
        self.period_us
    }
}

/// Number of processes and threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pids(u32);

impl Pids {
    /// 1 to as many as a kernel can have.
    pub fn new(count: u32) -> Result<Self> {
        if !(1..=4_194_304).contains(&count) {
            return refuse(Setting::Pids, count, "use 1 to 4194304 processes");
        }
        Ok(Self(count))
    }

    pub(super) fn count(self) -> u32 {
        self.0
    }
}

/// Share of the block devices; 100 is usual.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct IoWeight(u16);

impl IoWeight {
    /// 1 to 10000.
    pub fn new(weight: u16) -> Result<Self> {
        if !(1..=10_000).contains(&weight) {
            return refuse(Setting::IoWeight, weight, "use 1 to 10000; 100 is usual");
        }
        Ok(Self(weight))
    }

    pub(super) fn weight(self) -> u16 {
        self.0
    }
}

/// What a sandbox may use. What is left out stays as it is; in a new cgroup, without limit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limits {
    pub(super) memory: Option<Memory>,
    pub(super) high: Option<u64>,
    pub(super) swap: Option<u64>,
    pub(super) cpu: Option<Cpu>,
    pub(super) pids: Option<Pids>,
    pub(super) io_weight: Option<IoWeight>,
    pub(super) oom_group: bool,
}

impl Limits {
    /// Memory, with [`Memory::high`] below it.
    #[must_use]
    pub fn memory(mut self, memory: Memory) -> Self {
        self.memory = Some(memory);
        self.high = Some(memory.high());
        self
    }

    /// Another `memory_high`, at most the memory.
    pub fn memory_high(mut self, bytes: u64) -> Result<Self> {
        let high = Memory::of(Setting::MemoryHigh, bytes)?;
        if self.memory.is_none_or(|memory| memory < high) {
            return refuse(
                Setting::MemoryHigh,
                bytes,
                "set memory first, to at least as much",
            );
        }
        self.high = Some(bytes);
        Ok(self)
    }

    /// Swap beside the memory; 0 for none.
    pub fn swap(mut self, bytes: u64) -> Result<Self> {
        // v1 limits only the sum of both.
        let Some(memory) = self.memory else {
            return refuse(
                Setting::Swap,
                bytes,
                "set memory first: swap is what goes beyond it",
            );
        };
        if bytes > i64::MAX as u64 - memory.bytes() {
            return refuse(
                Setting::Swap,
                bytes,
                "more than there can be: use less than 8 EiB",
            );
        }
        self.swap = Some(bytes);
        Ok(self)
    }

    /// Processor time.
    #[must_use]
    pub fn cpu(mut self, cpu: Cpu) -> Self {
        self.cpu = Some(cpu);
        self
    }

    /// Processes and threads.
    #[must_use]
    pub fn pids(mut self, pids: Pids) -> Self {
        self.pids = Some(pids);
        self
    }

    /// Share of the block devices.
    #[must_use]
    pub fn io_weight(mut self, weight: IoWeight) -> Self {
        self.io_weight = Some(weight);
        self
    }

    /// All processes die when one is killed for want of memory.
    #[must_use]
    pub fn oom_group(mut self) -> Self {
        self.oom_group = true;
        self
    }
}

/// What became of one setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It holds; the value as the kernel reads it back.
    Applied(String),
    /// It cannot be had on this host; why.
    Unsupported(&'static str),
}

/// What became of every setting that was asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report(pub Vec<(Setting, Outcome)>);

impl Report {
    /// What became of one.
    #[must_use]
    pub fn of(&self, setting: Setting) -> Option<&Outcome> {
        let mut all = self.0.iter();
        all.find(|(of, _)| *of == setting)
            .map(|(_, outcome)| outcome)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told<T>(limit: Result<T>) -> String {
        limit
            .err()
            .map_or_else(String::new, |error| error.to_string())
    }

    #[test]
    fn a_refusal_names_field_value_and_remedy() -> Result<()> {
        let memory = Memory::new(64 << 20)?;
        for (told, words) in [
            (told(Memory::new(5)), ["memory = 5:", "1048576"]),
            (told(Cpu::millicores(1)), ["cpu = 1:", "10 to"]),
            (told(Cpu::new(50_000, 7)), ["cpu = 7:", "1000 to"]),
            (told(Pids::new(0)), ["pids = 0:", "1 to 4194304"]),
            (told(IoWeight::new(0)), ["io_weight = 0:", "1 to 10000"]),
            (
                told(Limits::default().swap(9)),
                ["swap = 9:", "set memory first"],
            ),
            (
                told(Limits::default().memory(memory).memory_high(65 << 20)),
                ["memory_high = 68157440:", "set memory first"],
            ),
        ] {
            assert!(
                words.iter().all(|word| told.contains(word)),
                "{told:?} lacks {words:?}"
            );
        }
        Ok(())
    }

    #[test]
    fn memory_is_slowed_at_seven_eighths() -> Result<()> {
        let limits = Limits::default().memory(Memory::new(64 << 20)?);
        assert_eq!(limits.high, Some(56 << 20));
        Ok(())
    }
}
