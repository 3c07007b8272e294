//! Limits on their way into the kernel: written, and read back from the same open file.
//!
//! cgroups-rs writes limits too, but by paths, ignores what fails for memory, and writes `io`
//! weights to `io.bfq.weight` alone; a limit that is claimed to hold must have been read back.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;

use rustix::fs::OFlags;
use rustix::io::Errno;

use super::dir::{Dir, fault, read_whole, write_whole};
use super::error::{Error, Result};
use super::group::Cgroup;
use super::layout::{Controller, Version};
use super::limits::{Limits, Outcome, Report, Setting};

/// One line for one file.
struct Write {
    setting: Setting,
    controller: Controller,
    file: &'static str,
    text: String,
    /// What the file then reads, where that is not what was written.
    reads: Option<String>,
}

/// Files of limits, held open for cgroups that shall be limited fast.
#[derive(Debug, Default)]
pub(super) struct Files(BTreeMap<&'static str, OwnedFd>);

impl Files {
    /// Opens all that [`Cgroup::apply`] may write to.
    pub(super) fn open(group: &Cgroup) -> Result<Self> {
        let mut files = Self::default();
        for (controller, v1, v2) in FILES {
            let Some(dir) = group.carrier(*controller) else {
                continue;
            };
            let names = if dir.version == Version::V1 { v1 } else { v2 };
            for name in *names {
                if dir.has(name) {
                    files.of(dir, name)?;
                }
            }
        }
        Ok(files)
    }

    fn of(&mut self, dir: &Dir, file: &'static str) -> Result<&OwnedFd> {
        use std::collections::btree_map::Entry;
        Ok(match self.0.entry(file) {
            Entry::Occupied(open) => open.into_mut(),
            Entry::Vacant(free) => free.insert(dir.open(file, OFlags::RDWR)?),
        })
    }
}

/// Files of limits on v1 and v2, and below what no limit reads as.
const FILES: &[(Controller, &[&str], &[&str])] = &[
    (
        Controller::Memory,
        &[
            "memory.kmem.tcp.limit_in_bytes",
            "memory.limit_in_bytes",
            "memory.memsw.limit_in_bytes",
        ],
        &[
            "memory.max",
            "memory.high",
            "memory.swap.max",
            "memory.oom.group",
        ],
    ),
    (
        Controller::Cpu,
        &["cpu.cfs_period_us", "cpu.cfs_quota_us"],
        &["cpu.max"],
    ),
    (Controller::Pids, &["pids.max"], &["pids.max"]),
    (Controller::Io, &[], &["io.weight"]),
];

/// What takes each limit off. Of v1's memory the sum with swap goes first: it is never below.
const NO_LIMIT: &[(Controller, Version, &str, &str)] = &[
    (
        Controller::Memory,
        Version::V1,
        "memory.memsw.limit_in_bytes",
        "-1",
    ),
    (
        Controller::Memory,
        Version::V1,
        "memory.limit_in_bytes",
        "-1",
    ),
    (
        Controller::Memory,
        Version::V1,
        "memory.kmem.tcp.limit_in_bytes",
        "-1",
    ),
    (Controller::Memory, Version::V2, "memory.max", "max"),
    (Controller::Memory, Version::V2, "memory.high", "max"),
    (Controller::Memory, Version::V2, "memory.swap.max", "max"),
    (Controller::Memory, Version::V2, "memory.oom.group", "0"),
    (Controller::Cpu, Version::V1, "cpu.cfs_quota_us", "-1"),
    (Controller::Cpu, Version::V1, "cpu.cfs_period_us", "100000"),
    (Controller::Cpu, Version::V2, "cpu.max", "max 100000"),
    (Controller::Pids, Version::V1, "pids.max", "max"),
    (Controller::Pids, Version::V2, "pids.max", "max"),
    (Controller::Io, Version::V2, "io.weight", "default 100"),
];

/// What v1 reads as no limit of memory: all pages that can be counted.
const V1_UNLIMITED: u64 = i64::MAX as u64;

impl Cgroup {
    /// Sets limits and reads them back; says of each that was asked for what became of it.
    pub fn apply(&self, limits: &Limits) -> Result<Report> {
        self.apply_through(limits, &mut Files::default())
    }

    /// The same, through files that are open already.
    pub(super) fn apply_through(&self, limits: &Limits, files: &mut Files) -> Result<Report> {
        let mut report = Report::default();
        let version = |controller| self.carrier(controller).map(|dir| dir.version);
        for step in Plan::new(limits, version).0 {
            let (setting, outcome) = match step {
                Ok(write) => (write.setting, self.write(&write, files)?),
                Err((setting, why)) => (setting, Outcome::Unsupported(why)),
            };
            // Of a setting with several files the last one tells.
            report.0.retain(|(of, _)| *of != setting);
            report.0.push((setting, outcome));
        }
        Ok(report)
    }

    fn write(&self, write: &Write, files: &mut Files) -> Result<Outcome> {
        let Some(dir) = self.carrier(write.controller) else {
            return Ok(Outcome::Unsupported(
                "its controller is not to be had on this host",
            ));
        };
        let path = || dir.path.join(write.file);
        let fd = match files.of(dir, write.file) {
            Err(error) if error.is(Errno::NOENT) && dir.is_there() => {
                return Ok(Outcome::Unsupported("this kernel has no file for it"));
            }
            fd => fd?,
        };
        let wanted = write.reads.as_deref().unwrap_or(&write.text);
        let read = || -> Result<String> {
            let text = read_whole(fd).map_err(|errno| fault("read back", &path(), errno))?;
            Ok(text.lines().next().unwrap_or_default().to_owned())
        };
        // For each write of processor time the kernel looks at every cgroup of the node.
        let is_dear = write.controller == Controller::Cpu;
        if is_dear && read()? == wanted {
            return Ok(Outcome::Applied(wanted.to_owned()));
        }
        write_whole(fd, &write.text).map_err(|errno| fault("write a limit to", &path(), errno))?;
        let read = read()?;
        if read != wanted {
            return Err(Error::NotTaken {
                setting: write.setting,
                path: path(),
                wrote: write.text.clone(),
                read,
            });
        }
        Ok(Outcome::Applied(read))
    }

    /// Takes every limit off, and makes sure that it is.
    pub(super) fn reset(&self, files: &mut Files) -> Result<()> {
        for (controller, version, file, text) in NO_LIMIT {
            let Some(dir) = self.carrier(*controller) else {
                continue;
            };
            if dir.version != *version || !dir.has(file) {
                continue;
            }
            let failed = |errno| fault("take the limit off", &dir.path.join(file), errno);
            let fd = files.of(dir, file)?;
            write_whole(fd, text).map_err(failed)?;
            let read = read_whole(fd).map_err(failed)?;
            let read = read.lines().next().unwrap_or_default();
            let is_off = read == *text || (*text == "-1" && is_unlimited(read));
            if !is_off {
                return Err(Error::Content {
                    path: dir.path.join(file),
                    wanted: "no limit",
                    text: read.to_owned(),
                });
            }
        }
        Ok(())
    }
}

/// Whether v1 says that memory has no limit: it rounds down to pages of at most 64 KiB.
fn is_unlimited(read: &str) -> bool {
    read.parse()
        .is_ok_and(|bytes: u64| bytes >= V1_UNLIMITED - 0xffff)
}

/// The writes for these limits, in the order that the kernel wants, or why there are none.
#[derive(Default)]
struct Plan(Vec<std::result::Result<Write, (Setting, &'static str)>>);

/// Of a controller that nothing carries.
const NONE: &str = "its controller is not to be had on this host";

impl Plan {
    fn new(limits: &Limits, version: impl Fn(Controller) -> Option<Version>) -> Self {
        let mut plan = Self::default();
        match version(Controller::Memory) {
            None => plan.no_memory(limits),
            Some(Version::V1) => plan.memory_v1(limits),
            Some(Version::V2) => plan.memory_v2(limits),
        }
        plan.cpu(limits, version(Controller::Cpu));
        plan.pids(limits, version(Controller::Pids));
        plan.io(limits, version(Controller::Io));
        plan
    }

    fn write(
        &mut self,
        setting: Setting,
        controller: Controller,
        file: &'static str,
        text: String,
    ) {
        self.0.push(Ok(Write {
            setting,
            controller,
            file,
            text,
            reads: None,
        }));
    }

    /// The kernel counts whole pages.
    fn bytes(&mut self, setting: Setting, file: &'static str, bytes: u64) {
        self.0.push(Ok(Write {
            setting,
            controller: Controller::Memory,
            file,
            text: bytes.to_string(),
            reads: Some((bytes / page() * page()).to_string()),
        }));
    }

    fn refuse(&mut self, is_asked: bool, setting: Setting, why: &'static str) {
        if is_asked {
            self.0.push(Err((setting, why)));
        }
    }

    fn no_memory(&mut self, limits: &Limits) {
        self.refuse(limits.memory.is_some(), Setting::Memory, NONE);
        self.refuse(limits.high.is_some(), Setting::MemoryHigh, NONE);
        self.refuse(limits.swap.is_some(), Setting::Swap, NONE);
        self.refuse(limits.oom_group, Setting::OomGroup, NONE);
    }

    fn memory_v1(&mut self, limits: &Limits) {
        const NOT_V1: &str = "cgroup v1, which carries memory here, has no such thing";
        const SUM: &str = "memory.memsw.limit_in_bytes";
        if let Some(memory) = limits.memory {
            // The sum with swap may not be below, not even on the way.
            if limits.swap.is_some() {
                self.0.push(Ok(Write {
                    setting: Setting::Swap,
                    controller: Controller::Memory,
                    file: SUM,
                    text: "-1".to_owned(),
                    reads: Some((V1_UNLIMITED / page() * page()).to_string()),
                }));
            }
            // Bytes in sockets are counted by themselves here, and not at all without a limit: a
            // few hundred connections took all that the node has for TCP. First, since the last
            // file tells of the setting, and not every kernel has this one.
            let sockets = "memory.kmem.tcp.limit_in_bytes";
            self.bytes(Setting::Memory, sockets, memory.bytes());
            self.bytes(Setting::Memory, "memory.limit_in_bytes", memory.bytes());
            if let Some(swap) = limits.swap {
                self.bytes(Setting::Swap, SUM, memory.bytes() + swap);
            }
        }
        self.refuse(limits.high.is_some(), Setting::MemoryHigh, NOT_V1);
        self.refuse(limits.oom_group, Setting::OomGroup, NOT_V1);
    }

    fn memory_v2(&mut self, limits: &Limits) {
        if let Some(swap) = limits.swap {
            self.bytes(Setting::Swap, "memory.swap.max", swap);
        }
        if let Some(high) = limits.high {
            self.bytes(Setting::MemoryHigh, "memory.high", high);
        }
        if let Some(memory) = limits.memory {
            self.bytes(Setting::Memory, "memory.max", memory.bytes());
        }
        if limits.oom_group {
            let on = "1".to_owned();
            self.write(
                Setting::OomGroup,
                Controller::Memory,
                "memory.oom.group",
                on,
            );
        }
    }

    fn cpu(&mut self, limits: &Limits, version: Option<Version>) {
        const QUOTA: &str = "cpu.cfs_quota_us";
        let Some(cpu) = limits.cpu else {
            return;
        };
        let (quota, period) = (cpu.quota_us(), cpu.period_us());
        let mut write = |file, text| self.write(Setting::Cpu, Controller::Cpu, file, text);
        match version {
            None => self.refuse(true, Setting::Cpu, NONE),
            Some(Version::V1) => {
                // A quota that was set for another period may not fit the new one.
                write(QUOTA, "-1".to_owned());
                write("cpu.cfs_period_us", period.to_string());
                write(QUOTA, quota.to_string());
            }
            Some(Version::V2) => write("cpu.max", format!("{quota} {period}")),
        }
    }

    fn pids(&mut self, limits: &Limits, version: Option<Version>) {
        match (limits.pids, version) {
            (None, _) => {}
            (Some(_), None) => self.refuse(true, Setting::Pids, NONE),
            (Some(pids), Some(_)) => {
                let text = pids.count().to_string();
                self.write(Setting::Pids, Controller::Pids, "pids.max", text);
            }
        }
    }

    fn io(&mut self, limits: &Limits, version: Option<Version>) {
        const NOT_V1: &str = "cgroup v1 has weights for one scheduler of devices only";
        match (limits.io_weight, version) {
            (None, _) => {}
            (Some(_), None) => self.refuse(true, Setting::IoWeight, NONE),
            (Some(_), Some(Version::V1)) => self.refuse(true, Setting::IoWeight, NOT_V1),
            (Some(weight), Some(Version::V2)) => {
                let text = format!("default {}", weight.weight());
                self.write(Setting::IoWeight, Controller::Io, "io.weight", text);
            }
        }
    }
}

fn page() -> u64 {
    rustix::param::page_size() as u64
}
