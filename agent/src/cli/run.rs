//! `hearth run`: the daemon, from the probes to whoever wants to know.

mod functions;
mod healing;
mod locks;
mod oom;
mod resolving;
mod retransmit;
mod settings;

pub(super) use settings::check;

use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Args;
use hearth_abi::{Fate, Opener};
use sd_notify::NotifyState;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{MissedTickBehavior, interval};

use crate::cli::ConfigFile;
use crate::cli::line::line;
use crate::cli::terminal::Terminal;
use crate::config::{Config, Listen, PrintFormat};
use crate::export::{AgentState, Export, ProbeCounts};
use crate::functions::Manager;
use crate::kernel::drain::Events;
use crate::kernel::enrolment::Enrolment;
use crate::kernel::event::Event;
use crate::kernel::ledger::LedgerLine;
use crate::kernel::probes::Probes;
use crate::kernel::table;
use crate::kernel::watch_share::WatchShare;
use crate::observe::cold_start::start::Process;
use crate::observe::cold_start::{ColdStart, Finished, Reason, Tracker};
use crate::observe::healing::Healing;
use crate::observe::identity::{Bundles, CgroupNames, Cri, MemoryHierarchy, Resolver};
use crate::observe::oom::recorder::Recorder;
use crate::privilege;
use crate::time::Boottime;
use crate::web;
use functions::{Functions, Seen, Starting};
use healing::Healings;
use locks::Locks;
use oom::Oom;
use resolving::Resolving;
use retransmit::Retransmits;

/// How often ended starts are looked for.
const TICK: Duration = Duration::from_millis(50);
/// How often the agent's own state is read.
const STATE: Duration = Duration::from_secs(1);
/// How long the end waits for the collector.
const PATIENCE: Duration = Duration::from_secs(5);

/// Observe every start on this node, and tell it.
///
/// Prints starts as they happen, serves /metrics on loopback, and sends traces, metrics and
/// logs where the configuration names a collector. Ends on SIGTERM and SIGINT.
#[derive(Debug, Args)]
pub struct Run {
    #[command(flatten)]
    file: ConfigFile,
    /// Print each start as one JSON object.
    #[arg(long)]
    json: bool,
}

impl Run {
    /// Runs until told to stop.
    pub fn run(self) -> anyhow::Result<()> {
        let mut config = Config::load(self.file.config.as_deref())?;
        if self.json {
            config.print.format = PrintFormat::Json;
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            // For host names, what a container runtime wrote down, layers of functions: few at a time.
            .max_blocking_threads(8)
            .enable_all()
            .build()?;
        runtime.block_on(run(&config))
    }
}

async fn run(config: &Config) -> anyhow::Result<()> {
    // What can be wrong with the settings is found before anything is attached.
    let listener = match config.metrics.listen {
        Listen::Off => None,
        Listen::At(address) => Some(listen(address).await?),
    };
    let mut functions = Functions::prepare(config).await?;
    let mut export = Export::start(config)?;
    // From here on a signal ends what is under way in order: attaching may have made cgroups.
    let signals = Signals::new()?;
    let mut daemon = Daemon::start(config)?;
    if let Some(functions) = &mut functions {
        daemon.starting = functions.starting();
        daemon.healings = functions.healings();
        daemon.functions = Some(functions.manager());
    }
    if let Some(recorder) = &daemon.recorder {
        export.tell_near(&recorder.recorded());
    }
    // Whoever waits for readiness may count on the watch set, where it is always attached.
    daemon.steer_watch_set();
    privilege::keep_only(&privilege::OBSERVING, &[privilege::ATTACHING])?;
    if let Some(listener) = listener {
        tokio::spawn(web::serve(listener, export.telling()));
    }
    if let Some(functions) = functions {
        functions.serve();
    }
    let signals_named = config.signals.iter().map(|signal| signal.name());
    tracing::info!("observing {}", signals_named.collect::<Vec<_>>().join(", "));
    // Without a service manager there is nobody to notify.
    let _ = sd_notify::notify(&[NotifyState::Ready]);
    let ended = daemon.observe(signals, &mut export).await;
    let _ = sd_notify::notify(&[NotifyState::Stopping]);
    export.stop(PATIENCE).await;
    ended
}

async fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind(address).await.with_context(|| {
        format!("cannot listen at {address}; name another address in metrics.listen, or \"off\"")
    })?;
    let address = listener.local_addr()?;
    if !address.ip().is_loopback() {
        tracing::warn!("http://{address} tells everyone who can reach it of programs that start");
    }
    tracing::info!("metrics at http://{address}/metrics, the last starts at http://{address}/");
    Ok(listener)
}

/// What ends the daemon; a signal that came before it is waited for is not lost.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

struct Daemon {
    probes: Probes,
    events: Events,
    enrolment: Enrolment,
    tracker: Tracker,
    oom: Oom,
    /// How functions of this node start.
    starting: Option<Starting>,
    /// What is done about those that fail.
    healings: Option<Healings>,
    /// Who wants to know how these start.
    functions: Option<Manager>,
    locks: Locks,
    retransmits: Retransmits,
    resolver: Arc<Resolver>,
    resolving: Resolving,
    /// What is near its memory limit; `None` where nothing is recorded.
    recorder: Option<Recorder>,
    watch: WatchShare,
    began: Instant,
    lost: u64,
    format: PrintFormat,
    terminal: Terminal,
}

impl Daemon {
    fn start(config: &Config) -> anyhow::Result<Self> {
        let rules = settings::rules(config)?;
        let request = settings::request(config, &rules)?;
        let uprobes = settings::ready_uprobes(config, &rules);
        let (mut probes, events) = Probes::start(&request)?;
        for (file, symbol) in uprobes {
            probes.enrol_ready(&file, &symbol).with_context(|| {
                format!(
                    "cannot attach the ready rule uprobe:{}:{symbol}",
                    file.display()
                )
            })?;
        }
        for hook in probes
            .report()
            .iter()
            .filter(|hook| hook.strategy.is_none())
        {
            let reason = hook.refused.first().map_or("", |refused| &refused.reason);
            tracing::debug!(
                kind = hook.kind,
                reason,
                "not stamped all the time on this kernel"
            );
        }
        let cgroups = match MemoryHierarchy::find() {
            Ok(hierarchy) => CgroupNames::of(hierarchy),
            Err(error) => {
                tracing::warn!("containers and units cannot be named: {error}");
                CgroupNames::new()
            }
        };
        let cri = config
            .identity
            .cri_socket
            .as_deref()
            .map(Cri::at)
            .transpose()?;
        let label = config.identity.function_label.clone();
        let resolver = Resolver::new(label, Bundles::default(), cri);
        let settings = settings::settings(config, rules, probes.strategies());
        let mut enrolment = Enrolment::default();
        enrolment.running(&mut probes);
        Ok(Self {
            probes,
            events,
            enrolment,
            tracker: Tracker::new(settings, cgroups),
            oom: Oom::start(config)?,
            starting: None,
            healings: None,
            functions: None,
            locks: Locks::new(),
            retransmits: Retransmits::default(),
            resolver: Arc::new(resolver),
            resolving: Resolving::default(),
            recorder: recorder(config),
            watch: WatchShare::new(config.watch_share.0, Boottime::now().0),
            began: Instant::now(),
            lost: 0,
            format: config.print.format,
            terminal: Terminal::stdout(),
        })
    }

    /// Until a signal, or until nobody reads what is printed.
    async fn observe(&mut self, mut signals: Signals, export: &mut Export) -> anyhow::Result<()> {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut state = interval(STATE);
        state.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut batch = Vec::new();
        loop {
            tokio::select! {
                () = signals.next() => break,
                () = self.events.next_batch(&mut batch) => self.accept(&mut batch, export),
                _ = tick.tick() => {
                    self.steer_watch_set();
                    if let Err(error) = self.tell_ended(export) {
                        return quiet_if_unread(error);
                    }
                    self.advance_oom(export);
                    if let Some(healings) = &mut self.healings {
                        healings.advance(Boottime::now(), export);
                    }
                    self.locks.tell(&mut self.tracker, export);
                }
                Some(seen) = next(&mut self.starting) => self.see(seen),
                Some(kept) = self.oom.next() => {
                    if let Some(healings) = &mut self.healings {
                        healings.killed(&kept);
                    }
                    export.oom(&kept);
                }
                Some((healings, healing)) = healed(&mut self.healings) => {
                    healings.take_in(healing, export);
                }
                Some(start) = self.resolving.next() => {
                    if let Err(error) = self.tell(&start, export) {
                        return quiet_if_unread(error);
                    }
                }
                _ = state.tick() => {
                    self.read_state(export)?;
                    if sd_notify::watchdog_enabled().is_some() {
                        let _ = sd_notify::notify(&[NotifyState::Watchdog]);
                    }
                }
            }
        }
        self.events.take(&mut batch);
        self.accept(&mut batch, export);
        self.read_state(export)?;
        self.locks.tell(&mut self.tracker, export);
        let Self {
            locks,
            probes,
            tracker,
            ..
        } = self;
        locks.read(probes, tracker, export, true)?;
        let told = self.tell_last(export).await.or_else(quiet_if_unread);
        self.oom.finish(export);
        if let Some(healings) = &mut self.healings {
            healings.finish(export);
        }
        told
    }

    /// Sees to it that what a claimed sandbox starts opens a start, and ends it.
    fn see(&mut self, seen: Seen) {
        let claim = match seen {
            Seen::Claimed { claim, _done } => claim,
            Seen::Ready { claimed, at } => return self.tracker.claimed_is_ready(claimed, at),
        };
        match self.probes.watch_source(claim.init, Opener::Claim, 0) {
            Ok(()) => self.tracker.claimed(claim),
            Err(error) => {
                tracing::warn!(
                    "a start of function {} is not seen: {error}",
                    claim.function
                );
            }
        }
    }

    fn advance_oom(&mut self, export: &mut Export) {
        let (resolving, tracker) = (&self.resolving, &self.tracker);
        self.oom.advance(Boottime::now(), export, |capture| {
            let process = Process {
                tgid: capture.victim.pid,
                start_boottime: capture.victim.start_boottime.0,
            };
            resolving.may_be_of(capture) || tracker.is_starting(process)
        });
    }

    /// What ended before the end of the agent.
    async fn tell_last(&mut self, export: &mut Export) -> io::Result<()> {
        self.tell_ended(export)?;
        // Each takes a second at most.
        while let Some(start) = self.resolving.next().await {
            self.tell(&start, export)?;
        }
        Ok(())
    }

    fn accept(&mut self, batch: &mut Vec<Event>, export: &Export) {
        for event in batch.drain(..) {
            self.enrolment.note(&mut self.probes, &event);
            self.oom.note(&event, &self.tracker);
            self.tracker.accept(&event);
            if let Event::LockWait(record) = &event {
                self.locks.accept(record);
            }
            if let Event::Oom(event) = event {
                self.oom
                    .accept(event, &self.tracker, self.recorder.as_ref(), export);
            }
        }
    }

    fn tell_ended(&mut self, export: &mut Export) -> io::Result<()> {
        let ended = self.tracker.advance(Boottime::now());
        let unwatched = self.tracker.take_unwatched();
        self.probes.unwatch(&unwatched);
        for Finished { start, watched } in ended {
            self.probes.unwatch(&watched);
            if start.identity.container_id.is_none() {
                self.tell(&start, export)?;
            } else {
                self.resolving.ask(&self.resolver, start);
            }
        }
        Ok(())
    }

    fn tell(&mut self, start: &ColdStart, export: &mut Export) -> io::Result<()> {
        if let (Some(functions), "claim") = (&self.functions, start.opener) {
            let document = serde_json::to_string(start)?;
            let took = start.ready.is_ready().then(|| start.total_ns.as_duration());
            functions.saw(start.begin, took, document);
        }
        let begin = export.unix_ns(start.begin);
        let mut out = io::stdout().lock();
        match self.format {
            PrintFormat::Off => {}
            PrintFormat::Line => writeln!(out, "{}", line(start, begin, &self.terminal))?,
            PrintFormat::Json => {
                serde_json::to_writer(&mut out, start)?;
                writeln!(out)?;
            }
        }
        let context = export.cold_start(start, line(start, begin, &Terminal::PLAIN));
        if let Some(healings) = &mut self.healings {
            healings.started(start, context);
        }
        self.oom.started(start, context);
        Ok(())
    }

    fn steer_watch_set(&mut self) {
        let on = self.watch.at(self.began.elapsed());
        if on == self.probes.is_watching() {
            return;
        }
        if let Err(error) = self.probes.set_watching(on) {
            tracing::warn!("the watch set stays as it is: {error}");
        }
        let attached = self.probes.is_watching();
        let better = attached.then(|| (Boottime::now(), self.probes.strategies()));
        self.tracker.set_watching(better);
    }

    fn read_state(&mut self, export: &mut Export) -> anyhow::Result<()> {
        let Self {
            locks,
            retransmits,
            probes,
            tracker,
            ..
        } = self;
        locks.read(probes, tracker, export, false)?;
        retransmits.read(probes, tracker, export)?;
        let ledger = self.probes.ledger()?;
        let drained = self.probes.drained();
        let dropped = ledger.iter().map(LedgerLine::dropped).sum::<u64>();
        let lost = dropped + drained.dropped + drained.undecodable;
        self.tracker.note_lost(lost.saturating_sub(self.lost));
        self.lost = lost;
        export.oom_state().set(self.oom.state());
        if let Some(functions) = &self.functions {
            export.pools(&functions.pools());
        }
        let stats = self.tracker.stats();
        export.state().set(AgentState {
            ledger: ledger.iter().map(counts).collect(),
            recursion_misses: self.probes.recursion_misses(),
            queue_dropped: vec![
                ("events", drained.dropped),
                ("undecodable", drained.undecodable),
                ("marks", stats.marks_dropped),
                ("exec_names", stats.names_dropped),
                ("cgroup_names", stats.cgroups_evicted),
                ("identities", self.resolver.stats().busy),
            ],
            starts_open: stats.open as u64,
            // Each from the beginning: a counter that first shows with its first loss hides it.
            starts_evicted: Reason::ALL
                .into_iter()
                .filter(|reason| reason.is_loss())
                .map(|reason| (reason.name(), stats.gone.get(&reason).copied().unwrap_or(0)))
                .collect(),
            watch_share: self.watch.measured(),
        });
        Ok(())
    }
}

/// The next healing, where there are some.
async fn healed(healings: &mut Option<Healings>) -> Option<(&mut Healings, Healing)> {
    let healings = healings.as_mut()?;
    let healing = healings.next().await?;
    Some((healings, healing))
}

/// The next that is seen; never where nobody looks.
async fn next(starting: &mut Option<Starting>) -> Option<Seen> {
    match starting {
        Some(starting) => starting.recv().await,
        None => None,
    }
}

/// The flight recorder, where kills are told and it is not switched off.
fn recorder(config: &Config) -> Option<Recorder> {
    let settings = &config.oom.recorder;
    if !settings.enabled || !config.signals.contains(&table::Signal::Oom) {
        return None;
    }
    // Captures are told without it, and say so.
    Recorder::start(settings.settings())
        .inspect_err(|error| tracing::warn!("nothing is recorded before OOM kills: {error}"))
        .ok()
}

fn counts(line: &LedgerLine) -> ProbeCounts {
    let fates = Fate::ALL.into_iter().filter(|fate| *fate != Fate::Seen);
    ProbeCounts {
        probe: line.probe.name(),
        seen: line.count(Fate::Seen),
        fates: fates.map(|fate| (fate.name(), line.count(fate))).collect(),
    }
}

/// A reader that went away (`hearth run | head`) ends the agent as a signal does.
fn quiet_if_unread(error: io::Error) -> anyhow::Result<()> {
    if error.kind() == io::ErrorKind::BrokenPipe {
        return Ok(());
    }
    Err(error).context("cannot print a start")
}
