//! What the processes of a cgroup use and have used. What a host does not tell is `None`, never 0.

use std::time::Duration;

use cgroups_rs::fs::cpu::CpuController;
use cgroups_rs::fs::pid::PidController;

use super::dir::Dir;
use super::error::{Error, Result};
use super::flat;
use super::group::Cgroup;
use super::layout::{Controller, Version};

/// What a cgroup uses, of every controller that this host has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Usage {
    /// Memory.
    pub memory: Option<Memory>,
    /// Processor time.
    pub cpu: Cpu,
    /// Processes.
    pub pids: Option<Pids>,
    /// Block devices.
    pub io: Option<Io>,
}

/// Bytes that are charged to a cgroup.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Memory {
    /// All of them, now.
    pub current: u64,
    /// The most there ever was.
    pub peak: Option<u64>,
    /// Memory of processes that is in no file.
    pub anon: Option<u64>,
    /// Page cache; shared memory included.
    pub file: Option<u64>,
    /// Shared memory and tmpfs.
    pub shmem: Option<u64>,
    /// What the kernel keeps for it.
    pub kernel: Option<u64>,
    /// Swap.
    pub swap: Option<u64>,
    /// Processes that were killed for want of memory.
    pub oom_kills: Option<u64>,
}

/// Processor time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cpu {
    /// Spent.
    pub used: Option<Duration>,
    /// Kept from processes that wanted it, by the limit.
    pub throttled: Option<Duration>,
    /// Periods in which that happened.
    pub throttled_periods: Option<u64>,
}

/// Processes and threads.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pids {
    /// Now.
    pub current: u64,
    /// Forks that failed for the limit.
    pub refused: Option<u64>,
}

/// Bytes and requests of all block devices.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Io {
    /// Bytes read.
    pub read: u64,
    /// Bytes written.
    pub written: u64,
}

impl Cgroup {
    /// Reads what is used now.
    pub fn usage(&self) -> Result<Usage> {
        Ok(Usage {
            memory: self.carrier(Controller::Memory).map(memory).transpose()?,
            cpu: self.cpu()?,
            pids: self.carrier(Controller::Pids).map(pids).transpose()?,
            io: self.carrier(Controller::Io).map_or(Ok(None), io)?,
        })
    }

    /// Bytes of memory that are charged to it now.
    pub(super) fn charge(&self) -> Result<Option<u64>> {
        self.carrier(Controller::Memory)
            .map_or(Ok(None), |dir| current(dir).map(Some))
    }

    /// Lets the peak of memory begin anew, where the kernel does that for all who read it.
    pub(super) fn forget_peak(&self) -> Result<()> {
        match self.carrier(Controller::Memory) {
            Some(dir) if dir.version == Version::V1 => dir.write("memory.max_usage_in_bytes", "0"),
            // v2 does it for one open file at most.
            _ => Ok(()),
        }
    }

    fn cpu(&self) -> Result<Cpu> {
        let mut cpu = Cpu::default();
        // v2 accounts processor time in every cgroup; on a hybrid host v1's controllers do.
        let dir = self.carrier(Controller::Cpu).or(self.v2());
        if let Some(dir) = dir {
            let path = dir.magic_path();
            let stat = CpuController::new(path.clone(), path, dir.version == Version::V2)
                .cpu()
                .stat;
            cpu.throttled_periods = flat::value(&stat, "nr_throttled");
            cpu.throttled = match dir.version {
                Version::V1 => flat::value(&stat, "throttled_time").map(Duration::from_nanos),
                Version::V2 => flat::value(&stat, "throttled_usec").map(Duration::from_micros),
            };
            cpu.used = flat::value(&stat, "usage_usec").map(Duration::from_micros);
        }
        if let Some(dir) = self.carrier(Controller::Cpuacct) {
            // cgroups-rs reads 0 where there is no such file.
            let used = dir.read_if("cpuacct.usage")?;
            cpu.used = used
                .as_deref()
                .and_then(flat::number)
                .map(Duration::from_nanos);
        }
        Ok(cpu)
    }
}

fn current(dir: &Dir) -> Result<u64> {
    let file = match dir.version {
        Version::V1 => "memory.usage_in_bytes",
        Version::V2 => "memory.current",
    };
    let text = dir.read(file)?;
    flat::number(&text).ok_or_else(|| Error::Content {
        path: dir.path.join(file),
        wanted: "a number of bytes",
        text,
    })
}

/// cgroups-rs reads 0 for what is absent, and panics at lines of `memory.numa_stat` that it does
/// not know.
fn memory(dir: &Dir) -> Result<Memory> {
    let stat = dir.read_if("memory.stat")?.unwrap_or_default();
    let stat = |key| flat::value(&stat, key);
    let number = |file| Ok::<_, Error>(dir.read_if(file)?.as_deref().and_then(flat::number));
    let keyed =
        |file, key| Ok::<_, Error>(dir.read_if(file)?.and_then(|text| flat::value(&text, key)));
    let current = current(dir)?;
    Ok(match dir.version {
        Version::V1 => Memory {
            current,
            peak: number("memory.max_usage_in_bytes")?,
            anon: stat("total_rss"),
            file: stat("total_cache"),
            shmem: stat("total_shmem"),
            kernel: number("memory.kmem.usage_in_bytes")?,
            swap: stat("total_swap"),
            oom_kills: keyed("memory.oom_control", "oom_kill")?,
        },
        Version::V2 => Memory {
            current,
            peak: number("memory.peak")?,
            anon: stat("anon"),
            file: stat("file"),
            shmem: stat("shmem"),
            kernel: stat("kernel"),
            swap: number("memory.swap.current")?,
            oom_kills: keyed("memory.events", "oom_kill")?,
        },
    })
}

fn pids(dir: &Dir) -> Result<Pids> {
    let path = dir.magic_path();
    let controller = PidController::new(path.clone(), path, dir.version == Version::V2);
    let Ok(current) = controller.get_pid_current() else {
        return Err(if dir.is_there() {
            Error::Unsupported {
                what: "pids.current",
                why: "the kernel does not tell it",
            }
        } else {
            dir.gone()
        });
    };
    Ok(Pids {
        current,
        refused: controller.get_pid_events().ok(),
    })
}

/// cgroups-rs reads no bytes where there is no such file.
fn io(dir: &Dir) -> Result<Option<Io>> {
    Ok(match dir.version {
        Version::V2 => dir.read_if("io.stat")?.map(|text| io_v2(&text)),
        Version::V1 => {
            let text = dir.read_if("blkio.throttle.io_service_bytes_recursive")?;
            text.map(|text| io_v1(&text))
        }
    })
}

/// `8:0 rbytes=1 wbytes=2 ...`
fn io_v2(text: &str) -> Io {
    let sum = |key: &str| {
        let words = text
            .split_whitespace()
            .filter_map(|word| word.split_once('='));
        let values = words.filter(|(name, _)| *name == key);
        let values = values.filter_map(|(_, value)| value.parse::<u64>().ok());
        values.fold(0, u64::saturating_add)
    };
    Io {
        read: sum("rbytes"),
        written: sum("wbytes"),
    }
}

/// `8:0 Read 1`
fn io_v1(text: &str) -> Io {
    let sum = |kind: &str| {
        let values = text.lines().filter_map(|line| {
            let mut words = line.split_whitespace().skip(1);
            (words.next()? == kind).then(|| words.next()?.parse::<u64>().ok())?
        });
        values.fold(0, u64::saturating_add)
    };
    Io {
        read: sum("Read"),
        written: sum("Write"),
    }
}

impl Usage {
    /// What has been used since `before`, of what only grows; the rest as it is now.
    ///
    /// A peak that is not above the one of before was not told of this time: it is `None`.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        fn minus(now: Option<u64>, before: Option<u64>) -> Option<u64> {
            Some(now?.saturating_sub(before?))
        }
        let time =
            |now: Option<Duration>, before: Option<Duration>| Some(now?.saturating_sub(before?));
        let memory = self.memory.clone().map(|now| {
            let before = before.memory.clone().unwrap_or_default();
            Memory {
                peak: now
                    .peak
                    .filter(|&peak| before.peak.is_none_or(|before| peak > before)),
                oom_kills: minus(now.oom_kills, before.oom_kills),
                ..now
            }
        });
        let pids = self.pids.map(|now| Pids {
            refused: minus(now.refused, before.pids.and_then(|pids| pids.refused)),
            ..now
        });
        let cpu = Cpu {
            used: time(self.cpu.used, before.cpu.used),
            throttled: time(self.cpu.throttled, before.cpu.throttled),
            throttled_periods: minus(self.cpu.throttled_periods, before.cpu.throttled_periods),
        };
        let io = self.io.zip(before.io).map(|(now, before)| Io {
            read: now.read.saturating_sub(before.read),
            written: now.written.saturating_sub(before.written),
        });
        Self {
            memory,
            cpu,
            pids,
            io,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bytes_of_all_devices_are_summed() {
        let v2 = "8:0 rbytes=1 wbytes=20 rios=5\n8:16 rbytes=2 wbytes=40\n";
        let v1 = "8:0 Read 1\n8:0 Write 20\n8:0 Total 21\n8:16 Read 2\n8:16 Write 40\nTotal 63\n";
        let wanted = Io {
            read: 3,
            written: 60,
        };
        assert_eq!((io_v2(v2), io_v1(v1)), (wanted, wanted));
    }

    #[test]
    fn a_peak_of_another_time_is_not_told() {
        let of = |peak| Usage {
            memory: Some(Memory {
                peak: Some(peak),
                ..Memory::default()
            }),
            ..Usage::default()
        };
        let told = |now: u64| {
            of(now)
                .since(&of(100))
                .memory
                .and_then(|memory| memory.peak)
        };
        assert_eq!((told(100), told(101)), (None, Some(101)));
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_harm(text in "([0-9:a-zA-Z= ]{0,30}\n){0,6}") {
            let _ = (io_v1(&text), io_v2(&text));
        }
    }
}
