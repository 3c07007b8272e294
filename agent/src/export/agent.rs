//! What the agent tells of itself.

use std::sync::{Arc, Mutex, PoisonError};

use opentelemetry::KeyValue;
use opentelemetry::metrics::Meter;

/// What became of the hits of one probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeCounts {
    /// The probe.
    pub probe: &'static str,
    /// Hits.
    pub seen: u64,
    /// By fate.
    pub fates: Vec<(&'static str, u64)>,
}

/// The agent's own state at one moment; everything is a total since the agent began, unless
/// it says otherwise.
#[derive(Clone, Debug, Default)]
pub struct AgentState {
    /// The ledger.
    pub ledger: Vec<ProbeCounts>,
    /// Hits that the kernel skipped because the program already ran on that CPU, by program.
    pub recursion_misses: Vec<(String, u64)>,
    /// Items that a full queue refused, by queue.
    pub queue_dropped: Vec<(&'static str, u64)>,
    /// Starts that are open now.
    pub starts_open: u64,
    /// Starts that were given up, by reason.
    pub starts_evicted: Vec<(&'static str, u64)>,
    /// Share of the time in which the watch set was attached, 0 to 1.
    pub watch_share: f64,
}

/// The state, shared between the one who knows it and the instruments that tell it.
#[derive(Clone, Debug, Default)]
pub struct SharedState(Arc<Mutex<AgentState>>);

impl SharedState {
    /// Replaces the state.
    pub fn set(&self, state: AgentState) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = state;
    }

    fn read<T>(&self, read: impl FnOnce(&AgentState) -> T) -> T {
        read(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Makes the instruments that tell the state. They live as long as the meter's provider.
    pub(super) fn instrument(&self, meter: &Meter) {
        self.instrument_ledger(meter);
        self.instrument_queues(meter);
        instrument_process(meter);
    }

    fn instrument_ledger(&self, meter: &Meter) {
        let state = self.clone();
        meter
            .u64_observable_counter("hearth.probe.events")
            .with_unit("{event}")
            .with_description("Hits of a probe, and what became of them.")
            .with_callback(move |to| {
                state.read(|state| {
                    for ProbeCounts { probe, seen, fates } in &state.ledger {
                        for (fate, count) in [("seen", *seen)].iter().chain(fates) {
                            to.observe(
                                *count,
                                &[KeyValue::new("probe", *probe), KeyValue::new("fate", *fate)],
                            );
                        }
                    }
                });
            })
            .build();
        let state = self.clone();
        meter
            .i64_observable_gauge("hearth.agent.ledger.imbalance")
            .with_unit("{event}")
            .with_description("Hits of a probe less the sum of their fates; 0 is right.")
            .with_callback(move |to| {
                state.read(|state| {
                    for ProbeCounts { probe, seen, fates } in &state.ledger {
                        let fates = fates.iter().map(|(_, count)| *count).sum::<u64>();
                        let imbalance = seen.cast_signed().saturating_sub(fates.cast_signed());
                        to.observe(imbalance, &[KeyValue::new("probe", *probe)]);
                    }
                });
            })
            .build();
        let state = self.clone();
        meter
            .u64_observable_counter("hearth.agent.recursion_misses")
            .with_unit("{event}")
            .with_description("Hits skipped because the program already ran on that CPU.")
            .with_callback(move |to| {
                state.read(|state| {
                    for (program, count) in &state.recursion_misses {
                        to.observe(*count, &[KeyValue::new("program", program.clone())]);
                    }
                });
            })
            .build();
    }

    fn instrument_queues(&self, meter: &Meter) {
        let state = self.clone();
        meter
            .u64_observable_counter("hearth.agent.queue.dropped")
            .with_unit("{item}")
            .with_description("Items that a full queue of the agent refused.")
            .with_callback(move |to| {
                state.read(|state| {
                    for (queue, count) in &state.queue_dropped {
                        to.observe(*count, &[KeyValue::new("queue", *queue)]);
                    }
                });
            })
            .build();
        let state = self.clone();
        meter
            .u64_observable_gauge("hearth.agent.starts.open")
            .with_unit("{start}")
            .with_description("Starts that are open now.")
            .with_callback(move |to| to.observe(state.read(|state| state.starts_open), &[]))
            .build();
        let state = self.clone();
        meter
            .u64_observable_counter("hearth.agent.starts.evicted")
            .with_unit("{start}")
            .with_description("Starts given up before they were told.")
            .with_callback(move |to| {
                state.read(|state| {
                    for (reason, count) in &state.starts_evicted {
                        to.observe(*count, &[KeyValue::new("reason", *reason)]);
                    }
                });
            })
            .build();
        let state = self.clone();
        meter
            .f64_observable_gauge("hearth.agent.watch.share")
            .with_description("Share of the time in which the watch set was attached, 0 to 1.")
            .with_callback(move |to| to.observe(state.read(|state| state.watch_share), &[]))
            .build();
    }
}

/// Memory and CPU of the agent's process.
fn instrument_process(meter: &Meter) {
    meter
        .u64_observable_gauge("hearth.agent.memory.pss")
        .with_unit("By")
        .with_description("Memory of the agent: its own, and its share of what it shares.")
        .with_callback(|to| {
            if let Some(pss) = pss() {
                to.observe(pss, &[]);
            }
        })
        .build();
    meter
        .f64_observable_counter("hearth.agent.cpu.time")
        .with_unit("s")
        .with_description("CPU time of the agent.")
        .with_callback(|to| {
            let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
            let nanos = u32::try_from(time.tv_nsec).unwrap_or(0);
            let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
            to.observe(std::time::Duration::new(seconds, nanos).as_secs_f64(), &[]);
        })
        .build();
}

/// Proportional set size of this process, bytes.
fn pss() -> Option<u64> {
    let rollup = std::fs::read_to_string("/proc/self/smaps_rollup").ok()?;
    let kib = rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    Some(kib.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}
