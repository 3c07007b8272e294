//! The metrics of pools: what there is of sandboxes, who got one, and how long functions took.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use opentelemetry::KeyValue;
use opentelemetry::metrics::Meter;
use opentelemetry_semantic_conventions::attribute::FAAS_NAME;
use opentelemetry_semantic_conventions::metric as semantic;

use super::counted::{CountedHistogram, CountedSeries};
use super::names::Names;
use crate::observe::pool::{BOUNDS, Counter, Durations, PoolCounts, PoolState, PoolsState};

/// Series of one function in one of these metrics, far more than there are.
pub(super) const SERIES: usize = 16;

/// Whether a metric is one of these.
pub(super) fn is_one(name: &str) -> bool {
    name == "hearth.heal.back_off" || name.starts_with("hearth.pool.") || name.starts_with("faas.")
}

/// Tells what pools are like.
#[derive(Debug)]
pub(super) struct PoolMeters {
    told: Arc<Mutex<Told>>,
    /// What was counted of each function when it was last told.
    last: HashMap<String, PoolCounts>,
}

/// What is told, by bounded names: those beyond the bound together.
#[derive(Debug, Default)]
struct Told {
    memory: Vec<(&'static str, u64)>,
    now: BTreeMap<String, PoolState>,
    /// Never less than before: what a function that is gone has done stays.
    totals: BTreeMap<String, PoolCounts>,
}

impl PoolMeters {
    /// Makes the instruments. There are no series before a node with functions is told.
    #[must_use]
    pub(super) fn new(meter: &Meter) -> Self {
        let told = Arc::default();
        instrument_node(meter, &told);
        instrument_now(meter, &told);
        instrument_claims(meter, &told);
        instrument_functions(meter, &told);
        Self {
            told,
            last: HashMap::new(),
        }
    }

    /// Replaces what is told.
    pub(super) fn set(&mut self, state: &PoolsState, names: &mut Names) -> Vec<CountedHistogram> {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.now.clear();
        let mut last = HashMap::new();
        for pool in &state.pools {
            let name = names.bound(pool.function.clone());
            let new = match self.last.get(&pool.function) {
                Some(before) => pool.counts.since(before),
                None => pool.counts.clone(),
            };
            told.totals.entry(name.clone()).or_default().add(&new);
            last.insert(pool.function.clone(), pool.counts.clone());
            merge(told.now.entry(name).or_default(), pool);
        }
        self.last = last;
        let bytes = [
            ("budget", state.budget_bytes),
            ("used", Some(state.used_bytes)),
        ];
        let known = bytes
            .into_iter()
            .filter_map(|(state, bytes)| Some((state, bytes?)));
        told.memory = known.collect();
        histograms(&told.totals)
    }
}

/// Adds a pool to those that are told under the same name.
fn merge(to: &mut PoolState, pool: &PoolState) {
    to.max += pool.max;
    to.target += pool.target;
    to.ready += pool.ready;
    to.starting += pool.starting;
    to.busy += pool.busy;
    to.waiting += pool.waiting;
    to.idle_bytes += pool.idle_bytes;
    to.back_off = to.back_off.max(pool.back_off);
}

fn histograms(totals: &BTreeMap<String, PoolCounts>) -> Vec<CountedHistogram> {
    let histogram = |name, description, of: fn(&PoolCounts) -> &Durations| {
        let series = totals.iter().map(|(name, counts)| CountedSeries {
            attributes: vec![(FAAS_NAME, name.clone())],
            counts: of(counts).counts.to_vec(),
            sum: of(counts).sum.as_secs_f64(),
        });
        CountedHistogram {
            name,
            description,
            bounds: BOUNDS.to_vec(),
            series: series.collect(),
        }
    };
    vec![
        histogram(
            semantic::FAAS_INVOKE_DURATION,
            "Time that a function was at work on one request.",
            |counts| &counts.invoke,
        ),
        histogram(
            semantic::FAAS_INIT_DURATION,
            "Time from the claim of a sandbox until the function in it asked for work.",
            |counts| &counts.init,
        ),
    ]
}

fn function(name: &str) -> KeyValue {
    KeyValue::new(FAAS_NAME, name.to_owned())
}

fn instrument_node(meter: &Meter, told: &Arc<Mutex<Told>>) {
    let of = Arc::clone(told);
    meter
        .u64_observable_gauge("hearth.pool.memory")
        .with_unit("By")
        .with_description(
            "Memory of all sandboxes together: that they may have (budget), and that they have \
             (used).",
        )
        .with_callback(move |to| {
            let told = of.lock().unwrap_or_else(PoisonError::into_inner);
            for (state, bytes) in &told.memory {
                to.observe(*bytes, &[KeyValue::new("state", *state)]);
            }
        })
        .build();
}

fn instrument_now(meter: &Meter, told: &Arc<Mutex<Told>>) {
    let of = Arc::clone(told);
    meter
        .u64_observable_gauge("hearth.pool.sandboxes")
        .with_unit("{sandbox}")
        .with_description(
            "Sandboxes of a function: that there may be (max), that there should be (target), \
             that wait for work (ready), start (starting), are at work (busy).",
        )
        .with_callback(move |to| {
            let told = of.lock().unwrap_or_else(PoisonError::into_inner);
            for (name, pool) in &told.now {
                for (state, number) in [
                    ("max", pool.max),
                    ("target", pool.target),
                    ("ready", pool.ready),
                    ("starting", pool.starting),
                    ("busy", pool.busy),
                ] {
                    to.observe(number, &[function(name), KeyValue::new("state", state)]);
                }
            }
        })
        .build();
    let gauge = |name: &'static str, unit, description, of_pool: fn(&PoolState) -> u64| {
        let of = Arc::clone(told);
        meter
            .u64_observable_gauge(name)
            .with_unit(unit)
            .with_description(description)
            .with_callback(move |to| {
                let told = of.lock().unwrap_or_else(PoisonError::into_inner);
                for (name, pool) in &told.now {
                    to.observe(of_pool(pool), &[function(name)]);
                }
            })
            .build();
    };
    gauge(
        "hearth.pool.waiting",
        "{request}",
        "Requests that wait for a sandbox.",
        |pool| pool.waiting,
    );
    gauge(
        "hearth.pool.idle.memory",
        "By",
        "Memory of the sandboxes that wait for work.",
        |pool| pool.idle_bytes,
    );
    let of = Arc::clone(told);
    meter
        .f64_observable_gauge("hearth.heal.back_off")
        .with_unit("s")
        .with_description(
            "How long a function that keeps failing is left alone from now on; 0 where it is not.",
        )
        .with_callback(move |to| {
            let told = of.lock().unwrap_or_else(PoisonError::into_inner);
            for (name, pool) in &told.now {
                to.observe(pool.back_off.as_secs_f64(), &[function(name)]);
            }
        })
        .build();
}

/// Makes a counter of those that `attributes` gives attributes for, beside the function's name.
fn counter(
    meter: &Meter,
    told: &Arc<Mutex<Told>>,
    (name, unit, description): (&'static str, &'static str, &'static str),
    attributes: impl Fn(Counter) -> Option<Vec<KeyValue>> + Send + Sync + 'static,
) {
    let of = Arc::clone(told);
    meter
        .u64_observable_counter(name)
        .with_unit(unit)
        .with_description(description)
        .with_callback(move |to| {
            let told = of.lock().unwrap_or_else(PoisonError::into_inner);
            for (name, counts) in &told.totals {
                for (counter, count) in &counts.counts {
                    if let Some(mut attributes) = attributes(*counter) {
                        attributes.push(function(name));
                        to.observe(*count, &attributes);
                    }
                }
            }
        })
        .build();
}

fn instrument_claims(meter: &Meter, told: &Arc<Mutex<Told>>) {
    counter(
        meter,
        told,
        (
            "hearth.pool.claims",
            "{request}",
            "Requests for a sandbox: that found one ready (hit), waited for one at work (queued), \
             waited for one to start (miss), got none (refused, with the reason).",
        ),
        |counter| match counter {
            Counter::Served(how) => Some(vec![KeyValue::new("result", how)]),
            Counter::Refused(reason) => Some(vec![
                KeyValue::new("result", "refused"),
                KeyValue::new("reason", reason),
            ]),
            _ => None,
        },
    );
    counter(
        meter,
        told,
        (
            "hearth.pool.retired",
            "{sandbox}",
            "Sandboxes that the pool ended, by why.",
        ),
        |counter| match counter {
            Counter::Retired(why) => Some(vec![KeyValue::new("why", why)]),
            _ => None,
        },
    );
}

fn instrument_functions(meter: &Meter, told: &Arc<Mutex<Told>>) {
    let plain = |names, wanted| {
        counter(meter, told, names, move |counter| {
            (counter == wanted).then(Vec::new)
        });
    };
    plain(
        (
            semantic::FAAS_INVOCATIONS,
            "{invocation}",
            "Requests that a function answered.",
        ),
        Counter::Answered,
    );
    plain(
        (
            semantic::FAAS_ERRORS,
            "{error}",
            "Requests that a function failed; those that took too long are among them.",
        ),
        Counter::Failed,
    );
    plain(
        (
            semantic::FAAS_TIMEOUTS,
            "{timeout}",
            "Requests that a function took too long for.",
        ),
        Counter::TimedOut,
    );
    plain(
        (
            semantic::FAAS_COLDSTARTS,
            "{coldstart}",
            "Requests that had to wait for the function to start.",
        ),
        Counter::Served("miss"),
    );
}

#[cfg(test)]
mod tests;
