//! What was recorded, where the thread that records and those who ask meet.

use std::collections::{BTreeMap, HashMap};

use super::look::{Look, Mapped};
use super::samples::{Sample, Samples, WINDOW, bytes, held};
use super::{Near, controller, pressure};
use crate::observe::oom::before::{Before, Pressure, ProcessMemory, UsageSample, VmaList};
use crate::observe::oom::known::{Known, Reason};
use crate::time::{Boottime, Nanos};

/// The id under which the node is recorded; no cgroup has it.
pub(super) const NODE: u64 = 0;
/// How long a record is kept once its cgroup is gone or far from its limit again.
const KEPT: Nanos = Nanos(60_000_000_000);
/// Records kept of such; the oldest go first.
const ENDED: usize = 64;
/// Bytes of all lists of mappings together; the oldest go first.
const MAPS: usize = 2 * 1024 * 1024;

/// A process, such as the one that was killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its id.
    pub pid: u32,
    /// When its leader started, where that is known: the id may have been another's.
    pub start: Option<Boottime>,
}

/// What is fixed about a cgroup while it is near its limit.
#[derive(Clone, Debug)]
pub(super) struct About {
    /// Path within the hierarchy; `None` of the node.
    pub(super) path: Option<Box<str>>,
    /// Whether the hierarchy is v2.
    pub(super) is_v2: bool,
    /// Bytes at which the kernel kills.
    pub(super) limit: u64,
    /// `memory.oom.group`.
    pub(super) oom_group: Option<bool>,
    /// Text of `memory.stat` as it was armed.
    pub(super) stat: Option<Box<str>>,
}

/// One reading of an armed cgroup.
#[derive(Debug)]
pub(super) struct Reading<'a> {
    pub(super) usage: UsageSample,
    /// Lines `NAME VALUE`; empty where there are no counters.
    pub(super) events: &'a str,
    pub(super) pressure: Option<Pressure>,
}

/// What is recorded of one cgroup, or of the node.
struct Record {
    about: About,
    since: Boottime,
    ended: Option<Boottime>,
    samples: Samples,
    processes: Option<Vec<ProcessMemory>>,
    unasked: u64,
    mapped: Vec<Mapped>,
}

/// Every record.
#[derive(Default)]
pub(super) struct Board {
    records: HashMap<u64, Record>,
    maps: usize,
    /// Lists of mappings that went because there were too many.
    pub(super) lists_dropped: u64,
    /// Records that went because there were too many.
    pub(super) records_dropped: u64,
}

impl Board {
    /// A cgroup nears its limit.
    pub(super) fn arm(&mut self, id: u64, about: About, at: Boottime) {
        if let Some(record) = self.records.get_mut(&id) {
            record.about = about;
            record.ended = None;
            return;
        }
        let record = Record {
            about,
            since: at,
            ended: None,
            samples: Samples::new(),
            processes: None,
            unasked: 0,
            mapped: Vec::new(),
        };
        self.records.insert(id, record);
    }

    /// What was last seen of it before it was near begins its samples.
    pub(super) fn begin(&mut self, id: u64, first: UsageSample) {
        if let Some(record) = self.records.get_mut(&id)
            && record.samples.last().is_none()
        {
            record.samples.push(Sample {
                usage: first,
                events: None,
                pressure: None,
            });
        }
    }

    /// Its limit was changed.
    pub(super) fn set_limit(&mut self, id: u64, limit: u64) {
        if let Some(record) = self.records.get_mut(&id) {
            record.about.limit = limit;
        }
    }

    /// It was read. When it will reach its limit, as it looks now.
    pub(super) fn read(&mut self, id: u64, reading: &Reading<'_>) -> Option<Nanos> {
        let record = self.records.get_mut(&id)?;
        let events = (!reading.events.is_empty())
            .then(|| record.samples.order(controller::pairs(reading.events)));
        record.samples.push(Sample {
            usage: reading.usage,
            events,
            pressure: reading.pressure,
        });
        let growth = record.samples.growth(reading.usage.at, record.about.limit);
        growth.time_to_limit
    }

    /// It was looked at.
    pub(super) fn look(&mut self, id: u64, look: Look, at: Boottime) {
        let Some(record) = self.records.get_mut(&id) else {
            return;
        };
        record.processes = Some(look.processes);
        record.unasked = look.more;
        let is_new = |old: &Mapped| look.maps.iter().any(|new| new.pid == old.pid);
        // One that is not seen any more may be the one that somebody will ask for.
        record
            .mapped
            .retain(|old| !is_new(old) && at.since(old.maps.at) <= WINDOW);
        record.mapped.extend(look.maps);
        self.bound_maps();
    }

    /// It is gone, or far from its limit again.
    pub(super) fn disarm(&mut self, id: u64, at: Boottime) {
        if let Some(record) = self.records.get_mut(&id) {
            record.ended = Some(at);
        }
        self.sweep(at);
    }

    /// Forgets what ended long enough before `now`.
    pub(super) fn sweep(&mut self, now: Boottime) {
        self.records
            .retain(|_, record| record.ended.is_none_or(|at| now.since(at) < KEPT));
        let mut ended: Vec<_> = self
            .records
            .iter()
            .filter_map(|(id, record)| Some((record.ended?, *id)))
            .collect();
        ended.sort_unstable();
        let over = ended.len().saturating_sub(ENDED);
        for (_, id) in ended.into_iter().take(over) {
            self.records.remove(&id);
            self.records_dropped += 1;
        }
        self.bound_maps();
    }

    fn bound_maps(&mut self) {
        let lists = self.records.values().flat_map(|record| &record.mapped);
        self.maps = lists.map(|mapped| mapped.maps.text.len()).sum();
        while self.maps > MAPS {
            let oldest = self
                .records
                .values_mut()
                .filter_map(|record| {
                    let index = (0..record.mapped.len())
                        .min_by_key(|&index| record.mapped[index].maps.at)?;
                    Some((record.mapped[index].maps.at, index, record))
                })
                .min_by_key(|(at, ..)| *at);
            let Some((_, index, record)) = oldest else {
                break;
            };
            self.maps -= record.mapped.swap_remove(index).maps.text.len();
            self.lists_dropped += 1;
        }
    }

    /// Those that are near their limits now, the nearest first.
    pub(super) fn near(&mut self) -> Vec<Near> {
        let armed = self.records.iter_mut();
        let armed = armed.filter(|(_, record)| record.ended.is_none());
        let mut near: Vec<_> = armed
            .filter_map(|(&id, record)| {
                let usage = record.samples.last()?.usage;
                let growth = record.samples.growth(usage.at, record.about.limit);
                Some(Near {
                    id: (id != NODE).then_some(id),
                    path: record.about.path.as_deref().map(str::to_owned),
                    usage,
                    limit_bytes: record.about.limit,
                    share: bytes(held(&usage)) / bytes(record.about.limit.max(1)),
                    growth_bytes_per_second: growth.rate,
                    time_to_limit: growth.time_to_limit,
                    processes: record.processes.clone().unwrap_or_default(),
                })
            })
            .collect();
        near.sort_by(|a, b| b.share.total_cmp(&a.share));
        near
    }

    /// What was known of a cgroup, or of the node, and of `victim` at `at`.
    pub(super) fn before(&mut self, id: u64, victim: Process, at: Boottime) -> Known<Before> {
        let Some(record) = self
            .records
            .get_mut(&id)
            .filter(|record| record.since <= at)
        else {
            let what = if id == NODE { "the node" } else { "the cgroup" };
            let detail = format!("nobody had seen {what} near its limit before");
            return Known::absent(Reason::NotArmed, detail);
        };
        let usage: Vec<_> = record
            .samples
            .until(at)
            .map(|sample| sample.usage)
            .collect();
        if usage.is_empty() {
            let detail = "it had not been near its limit in the last 30 seconds";
            return Known::absent(Reason::NotArmed, detail);
        }
        let growth = record.samples.growth(at, record.about.limit);
        Known::Value(Before {
            usage,
            limit: Known::Value(record.about.limit),
            growth: growth.rate.map_or_else(
                || Known::absent(Reason::NotArmed, "it had been read only once"),
                Known::Value,
            ),
            time_to_limit: growth.time_to_limit.map_or_else(
                || Known::absent(Reason::NotApplicable, "it was not growing"),
                Known::Value,
            ),
            oom_group: record.oom_group(),
            pressure: record.pressure(at),
            events: record.events(at),
            stat: record.stat(),
            processes: record.processes.clone().map_or_else(
                || Known::absent(Reason::NotArmed, "there was no time for a look"),
                Known::Value,
            ),
            vmas: record.vmas(victim),
        })
    }
}

impl Record {
    const fn is_node(&self) -> bool {
        self.about.path.is_none()
    }

    fn oom_group(&self) -> Known<bool> {
        match self.about.oom_group {
            Some(group) => Known::Value(group),
            None if self.is_node() => Known::absent(Reason::NotApplicable, "the node has none"),
            None if self.about.is_v2 => Known::absent(Reason::Unreadable, "memory.oom.group"),
            None => Known::absent(Reason::CgroupVersion, "memory.oom.group is of v2"),
        }
    }

    fn pressure(&mut self, at: Boottime) -> Known<Pressure> {
        let last = self
            .samples
            .until(at)
            .filter_map(|sample| sample.pressure)
            .last();
        match last {
            Some(pressure) => Known::Value(pressure),
            None if self.is_node() => Known::absent(Reason::Kernel, pressure::NODE),
            None if self.about.is_v2 => Known::absent(Reason::Kernel, "memory.pressure"),
            None => Known::absent(Reason::CgroupVersion, "memory.pressure is of v2"),
        }
    }

    fn events(&mut self, at: Boottime) -> Known<BTreeMap<String, u64>> {
        let last = self
            .samples
            .until(at)
            .filter_map(|sample| sample.events)
            .last();
        match last {
            Some(events) => Known::Value(self.samples.named(&events)),
            None if self.is_node() => Known::absent(Reason::NotApplicable, "the node has none"),
            None => Known::absent(Reason::Unreadable, "the counters of the cgroup"),
        }
    }

    fn stat(&self) -> Known<BTreeMap<String, u64>> {
        match self.about.stat.as_deref() {
            Some(stat) => Known::Value(controller::table(stat)),
            None if self.is_node() => Known::absent(Reason::NotApplicable, "the node has none"),
            None => Known::absent(Reason::Unreadable, "memory.stat"),
        }
    }

    fn vmas(&self, victim: Process) -> Known<VmaList> {
        let ticks = victim.start.map(ticks);
        let of = |mapped: &&Mapped| {
            mapped.pid == victim.pid && ticks.is_none_or(|ticks| ticks == mapped.start_ticks)
        };
        if let Some(mapped) = self.mapped.iter().find(of) {
            return Known::Value(mapped.maps.list());
        }
        if self.processes.is_none() {
            return Known::absent(Reason::NotArmed, "there was no time for a look");
        }
        let detail = if self.unasked > 0 {
            format!("the last look left {} processes unasked", self.unasked)
        } else {
            "the victim was not there, or not among the largest, at the last look".to_owned()
        };
        Known::absent(Reason::NotArmed, detail)
    }
}

/// A start of a process as `/proc/PID/stat` has it.
fn ticks(start: Boottime) -> u64 {
    start.0 / (1_000_000_000 / rustix::param::clock_ticks_per_second().max(1))
}

#[cfg(test)]
mod tests;
