//! The kernel side as one value: loaded, attached, drained.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, HashMap, MapData, MapError, PerCpuArray, RingBuf},
};
use hearth_abi::{
    COMM_BYTES, Config, ExecRule, FILE_BYTES, LedgerRow, Opener, RetransmitNamespace, Watch,
};
use thiserror::Error;

use super::{
    attach::{self, Attached, HookReport, Link, Reach},
    btf::{Btf, BtfError},
    capability::Capability,
    cgroup_lock::{self, LockAddress, LockLimits, LockSnapshot, Locks},
    drain::{Drain, DrainCounts, Events},
    image::{Options, Plan, Root, Site},
    ledger::{self, LedgerLine},
    object, offsets,
    oom::OomLimits,
    program_log, recursion,
    retransmit::{RetransmitSnapshot, Retransmits},
    table::{Point, Signal, hooks},
    uprobes::{EnrolError, Uprobes},
};
use crate::memory;
use crate::time::Boottime;

/// Bytes that wait in the ring before the reader is woken: half of it.
const WAKE_BYTES: u32 = 1 << 19;

/// A task's name whose exec opens a start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameRule {
    /// Name: the executable's base name, of which the kernel keeps 15 bytes.
    pub name: String,
    /// Whether the program is a fork server, whose forks open starts.
    pub fork_server: bool,
    /// Bits of [`hearth_abi::ready`].
    pub ready: u32,
}

/// What the probes are to do.
#[derive(Clone, Debug)]
pub struct Request {
    /// What to watch.
    pub signals: BTreeSet<Signal>,
    /// Daemon or trace.
    pub reach: Reach,
    /// Whether every exec opens a start.
    pub every_exec: bool,
    /// Whether a cgroup that becomes populated opens one.
    pub cgroup_opens: bool,
    /// Names that open one.
    pub rules: Vec<NameRule>,
    /// Ready bits of starts that a cgroup opens.
    pub ready: u32,
    /// Kinds of ready rules in use: `accept`, `message`, `file`, `uprobe`.
    pub ready_kinds: Vec<&'static str>,
    /// Path of the `file` ready rule.
    pub ready_file: Option<String>,
    /// Which waits for locks are told one by one.
    pub locks: LockLimits,
    /// What a capture of an OOM kill may hold.
    pub oom: OomLimits,
    /// Programs that are not to be used, so that the ones below them on the ladder are.
    pub without: Vec<&'static str>,
}

impl Request {
    /// Watches `signals` and opens no starts.
    #[must_use]
    pub fn of(signals: impl IntoIterator<Item = Signal>) -> Self {
        Self {
            signals: signals.into_iter().collect(),
            reach: Reach::Daemon,
            every_exec: false,
            cgroup_opens: false,
            rules: Vec::new(),
            ready: 0,
            ready_kinds: Vec::new(),
            ready_file: None,
            locks: LockLimits::default(),
            oom: OomLimits::default(),
            without: Vec::new(),
        }
    }
}

/// The probes cannot be had.
#[derive(Debug, Error)]
pub enum ProbesError {
    /// No permission.
    #[error("loading probes needs {}; run as root, or grant them (see deploy/hearth.service)", .0.join(" and "))]
    Permission(Vec<&'static str>),
    /// No type information.
    #[error(transparent)]
    Types(#[from] BtfError),
    /// The object in this program is damaged.
    #[error("the kernel object in this program cannot be unpacked: {0}")]
    Object(#[source] std::io::Error),
    /// aya could not load the object.
    #[error("the kernel object cannot be loaded: {0}")]
    Load(#[source] Box<aya::EbpfError>),
    /// aya could not read the types.
    #[error("the kernel's types cannot be read: {0}")]
    AyaTypes(#[from] aya::BtfError),
    /// A map is not as expected.
    #[error("map {0}: {1}")]
    Map(&'static str, #[source] Box<MapError>),
    /// A map is missing.
    #[error(
        "the kernel object has no map {0}: it was built from other sources; run `cargo xtask build`"
    )]
    NoMap(&'static str),
    /// The kind that nothing works without.
    #[error("this kernel cannot stamp `{kind}`, without which there are no starts: {reason}")]
    Required {
        /// Kind.
        kind: &'static str,
        /// Why.
        reason: String,
        /// What became of every kind.
        report: Vec<HookReport>,
    },
    /// A ready file's path is too long.
    #[error("ready rule file:{path}: the path has {} bytes, and at most {} can be compared in the kernel", path.len(), FILE_BYTES - 1)]
    FilePath {
        /// Path.
        path: String,
    },
    /// The drain thread.
    #[error("the drain thread cannot be started: {0}")]
    Thread(std::io::Error),
}

/// The probes.
pub struct Probes {
    ebpf: Ebpf,
    attached: Attached,
    drain: Drain,
    ledger: PerCpuArray<MapData, LedgerRow>,
    watched: HashMap<MapData, u32, Watch>,
    sched_since: Array<MapData, u64>,
    /// Links of the watch set; dropping one detaches it.
    watch_links: Vec<Link>,
    uprobes: Uprobes,
    watching: bool,
    /// Where the signal `cgroup_lock` is watched.
    locks: Option<Locks>,
    /// Where the signal `retransmit` is watched.
    retransmits: Option<Retransmits>,
}

impl std::fmt::Debug for Probes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Probes")
            .field("attached", &self.attached)
            .finish_non_exhaustive()
    }
}

impl Probes {
    /// Loads and attaches; events begin to flow into the second value.
    pub fn start(request: &Request) -> Result<(Self, Events), ProbesError> {
        let missing = Capability::detect().missing_capabilities;
        if !missing.is_empty() {
            return Err(ProbesError::Permission(missing));
        }
        let started = Self::start_permitted(request);
        // Type information of a kernel is tens of megabytes while it is being read.
        memory::give_back();
        started
    }

    fn start_permitted(request: &Request) -> Result<(Self, Events), ProbesError> {
        let types = Btf::of_running_kernel()?;
        let aya_types = aya::Btf::from_sys_fs()?;
        let offsets = offsets::of(&types);
        for member in offsets::absent(&offsets) {
            tracing::debug!(member, "this kernel has no such member");
        }
        let config = Config {
            every_exec: u32::from(request.every_exec),
            exec_opens: u32::from(!request.rules.is_empty()),
            cgroup_opens: u32::from(request.cgroup_opens),
            ready: request.ready,
            wake_bytes: WAKE_BYTES,
        };
        let file = ready_file(request)?;
        let oom = request.oom.config();
        let mut ebpf = EbpfLoader::new()
            .btf(Some(&aya_types))
            .override_global("OFFSETS", &offsets, true)
            .override_global("CONFIG", &config, true)
            .override_global("READY_FILE", &file, true)
            .override_global("OOM", &oom, true)
            .load(&object::inflated()?)
            .map_err(|error| ProbesError::Load(Box::new(error)))?;

        set_rules(&mut ebpf, &request.rules)?;
        let lock_addresses = if request.signals.contains(&Signal::CgroupLock) {
            cgroup_lock::prepare(&mut ebpf, &request.locks)?
        } else {
            Vec::new()
        };
        let attached = attach::attach(
            &mut ebpf,
            &types,
            &aya_types,
            request.reach,
            &request.signals,
            &request.ready_kinds,
            &request.without,
        );
        for (hook, report) in hooks().filter_map(|hook| {
            attached
                .report
                .iter()
                .find(|report| report.kind == hook.kind)
                .map(|r| (hook, r))
        }) {
            if hook.required && report.strategy.is_none() {
                let reason = report
                    .refused
                    .first()
                    .map(|r| r.reason.clone())
                    .unwrap_or_default();
                return Err(ProbesError::Required {
                    kind: hook.kind,
                    reason,
                    report: attached.report.clone(),
                });
            }
        }
        let mut table: Array<_, u32> = map(&mut ebpf, "SYSCALLS")?;
        for (&number, &wanted) in &attached.syscalls {
            table
                .set(number, wanted, 0)
                .map_err(|error| ProbesError::Map("SYSCALLS", Box::new(error)))?;
        }
        let ring: RingBuf<_> = map(&mut ebpf, "EVENTS")?;
        let ledger = map(&mut ebpf, "LEDGER")?;
        let watched = map(&mut ebpf, "WATCHED")?;
        let sched_since = map(&mut ebpf, "SCHED_SINCE")?;
        let log = program_log::open(&mut ebpf)
            .inspect_err(|error| tracing::warn!(%error, "the programs' log cannot be read"))
            .ok();
        let captures: RingBuf<_> = map(&mut ebpf, "CAPTURES")?;
        let locks = request
            .signals
            .contains(&Signal::CgroupLock)
            .then(|| Locks::start(&mut ebpf, &attached.report, lock_addresses, &request.locks))
            .transpose()?;
        let retransmits = request
            .signals
            .contains(&Signal::Retransmit)
            .then(|| Retransmits::start(&mut ebpf))
            .transpose()?;
        let (drain, events) = Drain::start([ring, captures], log).map_err(ProbesError::Thread)?;
        let mut probes = Self {
            ebpf,
            attached,
            drain,
            ledger,
            watched,
            sched_since,
            watch_links: Vec::new(),
            uprobes: Uprobes::default(),
            watching: false,
            locks,
            retransmits,
        };
        if request.reach == Reach::Trace {
            probes.set_watching(true)?;
        }
        Ok((probes, events))
    }

    /// One line a kind.
    #[must_use]
    pub fn report(&self) -> &[HookReport] {
        &self.attached.report
    }

    /// By kind, the strategy in force now.
    #[must_use]
    pub fn strategies(&self) -> BTreeMap<String, String> {
        self.report()
            .iter()
            .filter_map(|line| {
                let watched = line.while_watching.filter(|_| self.watching);
                watched
                    .or(line.strategy)
                    .map(|name| (line.kind.to_owned(), name.to_owned()))
            })
            .collect()
    }

    /// What became of everything that the probes saw.
    pub fn ledger(&self) -> Result<Vec<LedgerLine>, ProbesError> {
        ledger::read(&self.ledger).map_err(|error| ProbesError::Map("LEDGER", Box::new(error)))
    }

    /// Waits for and holds of locks since the probes were attached; `None` where the signal is not
    /// watched.
    pub fn locks(&self) -> Result<Option<LockSnapshot>, ProbesError> {
        self.locks.as_ref().map(Locks::read).transpose()
    }

    /// The locks that are known by their address, and how they are known.
    #[must_use]
    pub fn lock_addresses(&self) -> &[LockAddress] {
        self.locks.as_ref().map_or(&[], Locks::addresses)
    }

    /// Segments sent again since the probes were attached; `None` where the signal is not watched,
    /// or nothing was sent again since the last reading.
    pub fn retransmits(&mut self) -> Result<Option<RetransmitSnapshot>, ProbesError> {
        match &mut self.retransmits {
            Some(retransmits) => retransmits.read(),
            None => Ok(None),
        }
    }

    /// Whether segments sent again are counted.
    #[must_use]
    pub const fn watches_retransmits(&self) -> bool {
        self.retransmits.is_some()
    }

    /// Makes room where namespaces sent nothing again for long; what each had sent again in the
    /// end, of those that have gone.
    pub fn forget_retransmits(&mut self, namespaces: &[RetransmitNamespace]) -> RetransmitSnapshot {
        self.retransmits
            .as_mut()
            .map(|retransmits| retransmits.forget(namespaces))
            .unwrap_or_default()
    }

    /// Why `cgroup_mutex` was not found at the start; it is when somebody first waits for it.
    #[must_use]
    pub fn lock_calibration_error(&self) -> Option<&str> {
        self.locks.as_ref().and_then(Locks::calibration)
    }

    /// Hits for which the kernel did not run a program, by program: one of ours was running on
    /// that CPU already.
    #[must_use]
    pub fn recursion_misses(&self) -> Vec<(String, u64)> {
        recursion::misses(&self.ebpf)
    }

    /// What went through the drain.
    #[must_use]
    pub fn drained(&self) -> DrainCounts {
        self.drain.counts()
    }

    /// Records lost so far, anywhere between the kernel and the queue.
    pub fn lost(&self) -> Result<u64, ProbesError> {
        let dropped: u64 = self.ledger()?.iter().map(LedgerLine::dropped).sum();
        let drained = self.drained();
        Ok(dropped + drained.dropped + drained.undecodable)
    }

    /// Whether the watch set is attached.
    #[must_use]
    pub fn is_watching(&self) -> bool {
        self.watching
    }

    /// Attaches or detaches the watch set.
    pub fn set_watching(&mut self, on: bool) -> Result<(), ProbesError> {
        if on == self.watching {
            return Ok(());
        }
        let since = |probes: &mut Self, value: u64| {
            probes
                .sched_since
                .set(0, value, 0)
                .map_err(|error| ProbesError::Map("SCHED_SINCE", Box::new(error)))
        };
        if on {
            // Without them there is no accounting, whatever else is attached.
            let mut has_sched = self
                .attached
                .watch_programs
                .iter()
                .any(|program| matches!(program.point, Point::TpBtf(_)));
            for program in &self.attached.watch_programs {
                match attach::attach_program(&mut self.ebpf, program) {
                    Ok(link) => self.watch_links.push(link),
                    Err(reason) => {
                        tracing::warn!(program = program.name, reason, "not attached");
                        has_sched &= !matches!(program.point, Point::TpBtf(_));
                    }
                }
            }
            if has_sched {
                since(self, Boottime::now().0)?;
            }
        } else {
            since(self, 0)?;
            self.watch_links.clear();
        }
        self.watching = on;
        Ok(())
    }

    /// Makes a process a source: each process that it forks opens a start.
    pub fn watch_source(
        &mut self,
        tgid: u32,
        opener: Opener,
        ready: u32,
    ) -> Result<(), ProbesError> {
        let watch = Watch {
            id: 0,
            start_boottime: 0,
            opener: opener as u32,
            ready,
            marked: 0,
            flags: 0,
            began_ns: 0,
            state: 0,
            accounted_ns: [0; 4],
        };
        self.watched
            .insert(tgid, watch, 0)
            .map_err(|error| ProbesError::Map("WATCHED", Box::new(error)))
    }

    /// The processes that are watched, but for ourselves.
    #[must_use]
    pub fn watched(&self) -> Vec<u32> {
        let own = std::process::id();
        let tgids = self.watched.keys().filter_map(Result::ok);
        tgids.filter(|&tgid| tgid != own).collect()
    }

    /// Whether a process is watched; the kernel side ends that when it exits.
    #[must_use]
    pub fn is_watched(&self, tgid: u32) -> bool {
        self.watched.get(&tgid, 0).is_ok()
    }

    /// Ends the watching of processes whose start is over.
    pub fn unwatch(&mut self, tgids: &[u32]) {
        for tgid in tgids {
            // Gone already when the process has exited.
            let _ = self.watched.remove(tgid);
        }
    }

    /// Attaches to the boundaries of an executable beneath `root`, once a file.
    pub fn enrol(
        &mut self,
        root: &Root,
        executable: &Path,
        options: &Options,
    ) -> Result<Plan, EnrolError> {
        self.uprobes
            .enrol(&mut self.ebpf, root, executable, options)
    }

    /// Attaches to a boundary that was learnt from a running program.
    pub fn enrol_site(&mut self, site: &Site) -> Result<(), EnrolError> {
        self.uprobes.attach(&mut self.ebpf, site)
    }

    /// Attaches the uprobe of a ready rule.
    pub fn enrol_ready(&mut self, file: &Path, symbol: &str) -> Result<(), EnrolError> {
        self.uprobes.attach_ready(&mut self.ebpf, file, symbol)
    }

    /// What is attached to programs.
    pub fn uprobes(&mut self) -> &mut Uprobes {
        &mut self.uprobes
    }
}

pub(super) fn map<T: TryFrom<aya::maps::Map, Error = MapError>>(
    ebpf: &mut Ebpf,
    name: &'static str,
) -> Result<T, ProbesError> {
    let map = ebpf.take_map(name).ok_or(ProbesError::NoMap(name))?;
    T::try_from(map).map_err(|error| ProbesError::Map(name, Box::new(error)))
}

/// The path of the `file` ready rule, as the programs compare it.
fn ready_file(request: &Request) -> Result<[u8; FILE_BYTES], ProbesError> {
    let mut file = [0; FILE_BYTES];
    if let Some(path) = &request.ready_file {
        // The last byte stays the end.
        file[..FILE_BYTES - 1]
            .get_mut(..path.len())
            .ok_or_else(|| ProbesError::FilePath { path: path.clone() })?
            .copy_from_slice(path.as_bytes());
    }
    Ok(file)
}

fn set_rules(ebpf: &mut Ebpf, rules: &[NameRule]) -> Result<(), ProbesError> {
    // Borrowed, not taken: a map that is closed before the programs are loaded is lost to them.
    let map = ebpf.map_mut("RULES").ok_or(ProbesError::NoMap("RULES"))?;
    let mut map: HashMap<_, [u8; COMM_BYTES], ExecRule> =
        HashMap::try_from(map).map_err(|error| ProbesError::Map("RULES", Box::new(error)))?;
    for rule in rules {
        let opener = if rule.fork_server {
            Opener::Fork
        } else {
            Opener::Exec
        };
        let value = ExecRule {
            opener: opener as u32,
            ready: rule.ready,
        };
        map.insert(comm_of(&rule.name), value, 0)
            .map_err(|error| ProbesError::Map("RULES", Box::new(error)))?;
    }
    Ok(())
}

/// The name as the kernel keeps it.
#[must_use]
pub fn comm_of(name: &str) -> [u8; COMM_BYTES] {
    let mut comm = [0; COMM_BYTES];
    for (slot, byte) in comm.iter_mut().zip(name.bytes().take(COMM_BYTES - 1)) {
        *slot = byte;
    }
    comm
}
