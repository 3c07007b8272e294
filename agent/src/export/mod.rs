//! Observations to OTLP, Prometheus and history.

mod agent;
mod clock;
mod counted;
mod headers;
mod heal;
mod healing;
mod history;
mod locks;
mod metrics;
mod names;
mod near;
mod oom;
mod otlp;
mod pools;
mod reader;
mod record;
mod resource;
mod retransmit;
mod sender;
mod slowest;
mod spool;
mod trace;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::metrics::{Meter, MeterProvider as _};
use opentelemetry_sdk::error::OTelSdkError;
use opentelemetry_sdk::metrics::SdkMeterProvider;
use thiserror::Error;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

pub use agent::{AgentState, ProbeCounts, SharedState};
pub use clock::WallClock;
pub use headers::{HeadersError, check as check_headers};
pub use healing::HealLink;
pub use history::{History, Told};
pub use locks::LongWait;
pub use names::{OTHER, UNKNOWN, name_of};
pub use oom::{OomState, SharedOom};
pub use otlp::{Collector, ConnectError, SendError};
pub use record::Record;
pub use resource::resource;
pub use spool::DiskError;
pub use trace::{TraceContext, record};

use crate::config::{Config, Signal};
use crate::kernel::cgroup_lock::LockSnapshot;
use crate::observe::cgroup_lock::WaitsByCgroup;
use crate::observe::cold_start::ColdStart;
use crate::observe::healing::Healing;
use crate::observe::oom::keeper::Kept;
use crate::observe::oom::recorder::Recorded;
use crate::observe::pool::{PoolState, PoolsState};
use crate::observe::retransmit::{Resent, SentSegments};
use crate::time::Boottime;
use counted::Counted;
use heal::HealMeters;
use locks::SharedWaits;
use metrics::Meters;
use names::Names;
use oom::OomMeters;
use pools::PoolMeters;
use reader::Reader;
use retransmit::RetransmitMeters;
use sender::{Outbox, Sender};
use slowest::Slowest;
use spool::{Disk, Spool};

/// An export that cannot begin.
#[derive(Debug, Error)]
pub enum ExportError {
    /// The spool's directory.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The collector's settings.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The SDK.
    #[error("cannot set up metrics: {0}")]
    Metrics(#[from] OTelSdkError),
    /// The registry.
    #[error("cannot set up metrics: {0}")]
    Registry(#[from] prometheus::Error),
}

/// Tells observations to everyone who wants them.
#[derive(Debug)]
pub struct Export {
    provider: SdkMeterProvider,
    registry: prometheus::Registry,
    meters: Meters,
    oom: OomMeters,
    retransmits: RetransmitMeters,
    pools: PoolMeters,
    heal: HealMeters,
    names: Names,
    /// Apart from those: what else starts on a node takes none from its functions.
    functions: Names,
    /// As they were last told, for the page.
    shown: Arc<Mutex<Vec<PoolState>>>,
    slowest: Arc<Mutex<Slowest>>,
    history: Arc<Mutex<History>>,
    clock: WallClock,
    state: SharedState,
    counted: Counted,
    lock_waits: SharedWaits,
    outbox: Option<Outbox>,
    sender: Option<(oneshot::Sender<Duration>, JoinHandle<()>)>,
}

impl Export {
    /// Begins to tell as `config` says. Needs a tokio runtime, in which the sender is spawned.
    pub fn start(config: &Config) -> Result<Self, ExportError> {
        let resource = resource();
        let registry = prometheus::Registry::new();
        let prometheus = opentelemetry_prometheus::exporter()
            .with_registry(registry.clone())
            .scope_info_enabled(false)
            .build()?;
        let reader = Reader::default();
        let mut provider = SdkMeterProvider::builder()
            .with_resource(resource.clone())
            .with_reader(prometheus)
            .with_view(metrics::bounds(config.metrics.max_functions));
        if config.otlp.endpoint.is_some() {
            provider = provider.with_reader(reader.clone());
        }
        let provider = provider.build();
        let meter = provider.meter_with_scope(otlp::scope());
        let state = SharedState::default();
        state.instrument(&meter);
        let slowest = Arc::new(Mutex::new(Slowest::default()));
        instrument_slowest(&meter, &slowest);
        let clock = WallClock::new();
        let counted = Counted::since(clock.unix_ns(Boottime::now()));
        registry.register(Box::new(counted.clone()))?;
        let lock_waits = SharedWaits::default();
        lock_waits.instrument(&meter);
        let mut export = Self {
            counted: counted.clone(),
            lock_waits,
            meters: Meters::new(&meter),
            oom: OomMeters::new(&meter),
            retransmits: RetransmitMeters::new(&meter),
            pools: PoolMeters::new(&meter),
            heal: HealMeters::new(&meter),
            functions: Names::new(config.metrics.max_functions),
            provider,
            registry,
            names: Names::new(config.metrics.max_functions),
            shown: Arc::default(),
            slowest,
            history: Arc::default(),
            clock,
            state,
            outbox: None,
            sender: None,
        };
        if let Some(endpoint) = &config.otlp.endpoint {
            let spool = &config.otlp.spool;
            let disk = spool
                .dir
                .as_deref()
                .map(|dir| Disk::open(dir, spool.disk.0))
                .transpose()?;
            let collector = Collector::new(endpoint, &config.otlp, &resource)?;
            let outbox = Outbox::new(Spool::new(spool.memory.0, disk));
            let items = meter
                .u64_counter("hearth.agent.export.items")
                .with_unit("{item}")
                .with_description("Spans, data points and log records by what became of them.")
                .build();
            let sender = Sender::new(
                collector,
                endpoint.clone(),
                &config.otlp,
                outbox.clone(),
                (reader, counted.clone()),
                items,
            );
            let (stop, stopped) = oneshot::channel();
            export.sender = Some((stop, tokio::spawn(sender.run(stopped))));
            let wanted = |signal| config.otlp.signals.contains(&signal);
            if wanted(Signal::Traces) || wanted(Signal::Logs) {
                export.outbox = Some(outbox);
            }
        }
        Ok(export)
    }

    /// Tells a start; `line` is what people read of it. Returns its trace.
    pub fn cold_start(&mut self, start: &ColdStart, line: String) -> TraceContext {
        self.clock.keep();
        let context = TraceContext::random();
        let name = name_of(&start.identity);
        let bounded = self.names.bound(name.clone());
        self.meters.count(start, &bounded);
        let end = Boottime(start.begin.0.saturating_add(start.total_ns.0));
        lock(&self.slowest).add(end, start.total_ns, context.trace_id, bounded);
        lock(&self.history).add(Told {
            end_unix_ns: self.clock.unix_ns(end),
            name,
            trace_id: context.trace_id,
            line,
            json: history::json(start),
        });
        if let Some(outbox) = &self.outbox {
            outbox.push(record(start, &self.clock, context));
        }
        context
    }

    /// Tells a kill for want of memory.
    pub fn oom(&mut self, kept: &Kept) {
        self.clock.keep();
        let bounded = self.names.bound(oom::victim_name(&kept.capture));
        self.oom.count(&kept.capture, &bounded);
        if let Some(outbox) = &self.outbox {
            outbox.push(oom::record(kept, &self.clock));
        }
    }

    /// Counts segments that were sent again; `path` is that of their cgroup, if it is known.
    pub fn resent(&mut self, resent: &Resent, path: Option<String>) {
        self.retransmits.count(resent, path);
    }

    /// Tells from now on that this was sent.
    pub fn sent(&self, sent: Vec<SentSegments>) {
        self.retransmits.set_sent(sent);
    }

    /// Tells what the pools are like now.
    pub fn pools(&mut self, state: &PoolsState) {
        for pool in &state.pools {
            let name = self.functions.bound(pool.function.clone());
            self.heal.begin(&name);
        }
        self.counted.set(self.pools.set(state, &mut self.functions));
        lock(&self.shown).clone_from(&state.pools);
    }

    /// Tells what was done about a fault of a function's sandbox, and what came of it.
    pub fn healing(&mut self, healing: &Healing, links: &[HealLink]) {
        self.clock.keep();
        let name = self.functions.bound(healing.function.clone());
        self.heal.count(healing, &name);
        if let Some(outbox) = &self.outbox {
            outbox.push(healing::record(healing, links, &self.clock));
        }
    }

    /// Where the state of the `oom` signal is put, to be told.
    #[must_use]
    pub fn oom_state(&self) -> SharedOom {
        self.oom.state()
    }

    /// Where the agent's own state is put, to be told.
    #[must_use]
    pub fn state(&self) -> SharedState {
        self.state.clone()
    }

    /// Tells what was counted of cgroup locks.
    pub fn locks(&self, snapshot: &LockSnapshot, waits: &WaitsByCgroup) {
        self.counted.set(locks::histograms(snapshot));
        self.lock_waits.set(waits);
    }

    /// Tells a long wait for one of them.
    pub fn lock_wait(&mut self, wait: &LongWait<'_>) {
        self.clock.keep();
        if let Some(outbox) = &self.outbox {
            outbox.push(locks::record(wait, &self.clock));
        }
    }

    /// Tells who is near a memory limit, from now on.
    pub fn tell_near(&self, recorded: &Recorded) {
        near::instrument(&self.provider.meter_with_scope(otlp::scope()), recorded);
    }

    /// Where the page finds what was told.
    #[must_use]
    pub fn telling(&self) -> Telling {
        Telling {
            registry: self.registry.clone(),
            history: Arc::clone(&self.history),
            pools: Arc::clone(&self.shown),
        }
    }

    /// Nanoseconds since 1970 at `time`.
    #[must_use]
    pub const fn unix_ns(&self, time: Boottime) -> u64 {
        self.clock.unix_ns(time)
    }

    /// Sends what waits, for at most `patience`, keeps what it can of the rest on disk, and
    /// ends.
    pub async fn stop(self, patience: Duration) {
        if let Some((stop, ended)) = self.sender {
            // The sender ends only when it is told to.
            let _ = stop.send(patience);
            if let Err(error) = ended.await {
                tracing::error!("the sender failed: {error}");
            }
        }
        if let Err(error) = self.provider.shutdown() {
            tracing::debug!("shutting down metrics: {error}");
        }
    }
}

/// What the page shows.
#[derive(Clone, Debug)]
pub struct Telling {
    registry: prometheus::Registry,
    history: Arc<Mutex<History>>,
    pools: Arc<Mutex<Vec<PoolState>>>,
}

impl Telling {
    /// The metrics, in Prometheus' text format.
    pub fn metrics(&self) -> Result<String, prometheus::Error> {
        prometheus::TextEncoder::new().encode_to_string(&self.registry.gather())
    }

    /// The pools of functions, as they were last told.
    pub fn pools(&self) -> MutexGuard<'_, Vec<PoolState>> {
        lock(&self.pools)
    }

    /// The last starts.
    pub fn history(&self) -> MutexGuard<'_, History> {
        lock(&self.history)
    }
}

fn instrument_slowest(meter: &Meter, slowest: &Arc<Mutex<Slowest>>) {
    let slowest = Arc::clone(slowest);
    meter
        .f64_observable_gauge("hearth.cold_start.slowest")
        .with_unit("s")
        .with_description("The slowest starts of the last 15 minutes, by rank.")
        .with_callback(move |to| {
            for (index, slow) in lock(&slowest).top(Boottime::now()).into_iter().enumerate() {
                let attributes = [
                    KeyValue::new("rank", (index + 1).to_string()),
                    KeyValue::new("trace_id", format!("{:032x}", slow.trace_id)),
                    KeyValue::new("faas.name", slow.name),
                ];
                to.observe(slow.total.as_secs_f64(), &attributes);
            }
        })
        .build();
}

/// What is behind the locks is whole between any two statements: a panic in between does not
/// spoil it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
