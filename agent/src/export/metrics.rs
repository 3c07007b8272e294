//! The instruments of the `cold_start` signal.

use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Histogram, Meter};
use opentelemetry_sdk::metrics::{Instrument, Stream};
use opentelemetry_semantic_conventions::attribute::FAAS_NAME;

use super::oom::CONSTRAINTS;
use super::{heal, pools, retransmit};
use crate::observe::cold_start::{ColdStart, PhaseName};

/// Upper bounds of the histograms' buckets, seconds: 10 us to 60 s.
const BOUNDARIES: [f64; 21] = [
    0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025,
    0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 60.0,
];

/// Cgroups whose waits for locks are told, far more than there are.
const LOCK_CGROUPS: usize = 1_000;
/// Words of a cause.
const CAUSES: usize = 4;
/// Words of `ready`.
const READYS: usize = 9;
/// Words of `opener`.
const OPENERS: usize = 5;

/// Raises the SDK's bound of attribute sets to what the words above allow: names are bounded
/// before they come here, so that nothing is ever folded into the SDK's overflow.
pub(super) fn bounds(max_functions: usize) -> impl Fn(&Instrument) -> Option<Stream> {
    // Beside the known names there are `~other` and `~unknown`.
    let names = max_functions + 2;
    let phases = PhaseName::ALL.len();
    // A merged phase is a run of neighbours.
    let labels = phases * (phases + 1) / 2;
    move |instrument| {
        let limit = match instrument.name() {
            "hearth.cold_start.duration" => names * READYS * OPENERS,
            "hearth.cold_start.phase.duration" => names * labels,
            "hearth.cgroup.lock.wait.time" => LOCK_CGROUPS,
            "hearth.cold_start.cause.time" => names * labels * CAUSES,
            "hearth.tcp.retransmitted_segments" => retransmit::SERIES,
            "hearth.oom.kills" => names * CONSTRAINTS,
            "hearth.heal.actions" => names * heal::SERIES,
            name if pools::is_one(name) => names * pools::SERIES,
            _ => return None,
        };
        Stream::builder().with_cardinality_limit(limit).build().ok()
    }
}

/// Counts what a start is made of.
#[derive(Debug)]
pub(super) struct Meters {
    duration: Histogram<f64>,
    phase_duration: Histogram<f64>,
    cause_time: Counter<f64>,
}

impl Meters {
    /// Makes the instruments.
    #[must_use]
    pub(super) fn new(meter: &Meter) -> Self {
        let histogram = |name: &'static str, description: &'static str| {
            meter
                .f64_histogram(name)
                .with_unit("s")
                .with_description(description)
                .with_boundaries(BOUNDARIES.to_vec())
                .build()
        };
        Self {
            duration: histogram(
                "hearth.cold_start.duration",
                "Time from what opened a start to ready, or to the end that was not ready.",
            ),
            phase_duration: histogram(
                "hearth.cold_start.phase.duration",
                "Time spent in one phase of a start.",
            ),
            cause_time: meter
                .f64_counter("hearth.cold_start.cause.time")
                .with_unit("s")
                .with_description(
                    "Time of phases by what the process did: running, queued for a CPU, \
                     waiting for I/O, blocked otherwise. Only where it was measured.",
                )
                .build(),
        }
    }

    /// Counts `start` under the bounded `name`.
    pub(super) fn count(&self, start: &ColdStart, name: &str) {
        let faas = || KeyValue::new(FAAS_NAME, name.to_owned());
        self.duration.record(
            start.total_ns.as_secs_f64(),
            &[
                faas(),
                KeyValue::new("ready", start.ready.as_str()),
                KeyValue::new("opener", start.opener),
            ],
        );
        for phase in &start.phases {
            let label = || KeyValue::new("phase", phase.label());
            self.phase_duration
                .record(phase.duration().as_secs_f64(), &[faas(), label()]);
            for (cause, time) in [
                ("running", phase.running_ns),
                ("queued", phase.queued_ns),
                ("io", phase.io_ns),
                ("blocked", phase.blocked_ns),
            ] {
                let Some(time) = time else { continue };
                let attributes = [faas(), label(), KeyValue::new("cause", cause)];
                self.cause_time.add(time.as_secs_f64(), &attributes);
            }
        }
    }
}
