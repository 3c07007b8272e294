//! What was published, measured in traces that were made up.

use std::collections::BTreeMap;

use super::super::trace::Trigger;
use super::triggers::{FUNCTIONS, REQUESTED};
use super::*;

/// Shares in per cent, measured in one trace.
#[derive(Debug, Default)]
struct Measured {
    functions: [f64; 7],
    requests: [f64; 7],
    sizes: [f64; 6],
    hourly: f64,
    minutely: f64,
    /// Of apps by how much the times between requests vary: near 0, at most 1, more than 2.
    variation: [f64; 3],
    /// Median and third quartile of functions' mean times at work, in seconds.
    work: [f64; 2],
    /// Median and 90th percentile of apps' memory, in MiB.
    memory: [f64; 2],
}

#[expect(clippy::cast_precision_loss, reason = "a figure to compare")]
fn percent(part: usize, whole: usize) -> f64 {
    part as f64 * 100.0 / whole as f64
}

fn quantile(values: &mut [f64], share: usize) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() * share / 100]
}

#[expect(clippy::cast_precision_loss, reason = "a figure to compare")]
fn measure(trace: &Trace) -> Measured {
    let mut measured = Measured::default();
    let functions = trace.functions();
    let mut apps: BTreeMap<&str, (usize, f64, Vec<f64>)> = BTreeMap::new();
    for function in functions {
        let app = apps.entry(&function.app).or_default();
        app.0 += 1;
        app.1 = function.memory_bytes as f64 / MIB;
    }
    let mut works = vec![(0.0, 0.0); functions.len()];
    let mut requests = [0; 7];
    let position = |function: &Function| {
        let trigger = function.trigger.expect("a trigger");
        Trigger::ALL
            .iter()
            .position(|one| *one == trigger)
            .expect("one of all")
    };
    for arrival in trace.arrivals() {
        let function = &functions[arrival.function()];
        requests[position(function)] += 1;
        let times = &mut apps.get_mut(&*function.app).expect("its app").2;
        times.push(arrival.at().0.as_secs_f64());
        let (sum, count) = &mut works[arrival.function()];
        *sum += arrival.work().as_secs_f64();
        *count += 1.0;
    }
    for (trigger, requests) in requests.into_iter().enumerate() {
        let of = functions.iter().filter(|one| position(one) == trigger);
        measured.functions[trigger] = percent(of.count(), functions.len());
        measured.requests[trigger] = percent(requests, trace.arrivals().len());
    }
    for (size, (_, least, most)) in SIZES.iter().enumerate() {
        let of = apps
            .values()
            .filter(|app| (*least..=*most).contains(&app.0));
        measured.sizes[size] = percent(of.count(), apps.len());
    }
    let hours = trace.end().0.as_secs_f64() / HOUR;
    let at_most = |rate: f64| {
        let of = apps
            .values()
            .filter(|app| app.2.len() as f64 / hours <= rate);
        percent(of.count(), apps.len())
    };
    (measured.hourly, measured.minutely) = (at_most(1.0), at_most(60.0));
    // Fewer gaps tell nothing of how they vary.
    let variations: Vec<f64> = apps
        .values()
        .filter(|app| app.2.len() >= 8)
        .map(|app| variation(&app.2))
        .collect();
    let of = |fits: &dyn Fn(f64) -> bool| {
        percent(
            variations.iter().filter(|one| fits(**one)).count(),
            variations.len(),
        )
    };
    measured.variation = [
        of(&|one| one < 0.05),
        of(&|one| one <= 1.0),
        of(&|one| one > 2.0),
    ];
    let mut works: Vec<f64> = works
        .iter()
        .filter(|(_, count)| *count > 0.0)
        .map(|(sum, count)| sum / count)
        .collect();
    measured.work = [50, 75].map(|share| quantile(&mut works, share));
    let mut memory: Vec<f64> = apps.values().map(|app| app.1).collect();
    measured.memory = [50, 90].map(|share| quantile(&mut memory, share));
    measured
}

/// Of the gaps between these times: their deviation by their mean.
#[expect(clippy::cast_precision_loss, reason = "a figure to compare")]
fn variation(times: &[f64]) -> f64 {
    let gaps: Vec<f64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
    let square = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
    square.sqrt() / mean
}

#[track_caller]
fn assert_near(what: &str, measured: &[f64], published: &[f64], tolerance: f64) {
    for (one, other) in measured.iter().zip(published) {
        let apart = (one - other).abs();
        assert!(
            apart <= tolerance,
            "{what}: {measured:.1?}, published {published:?}"
        );
    }
}

/// How far from what was published it may be: in per cent of all, of the seconds of the third
/// quartile of work, and of MiB.
struct Tolerance {
    requests: f64,
    hourly: f64,
    variation: f64,
    work: f64,
    memory: f64,
}

fn check(measured: &Measured, tolerance: &Tolerance) {
    assert_near("functions", &measured.functions, &FUNCTIONS, 1.0);
    let requests = tolerance.requests;
    assert_near("requests", &measured.requests, &REQUESTED, requests);
    let sizes = SIZES.map(|(share, ..)| share);
    assert_near("functions of an app", &measured.sizes, &sizes, 1.0);
    let hourly = tolerance.hourly;
    assert_near("apps at most hourly", &[measured.hourly], &[45.0], hourly);
    let minutely = [measured.minutely];
    assert_near("apps at most once a minute", &minutely, &[80.0], 1.0);
    let variation = tolerance.variation;
    assert_near(
        "variation",
        &measured.variation,
        &[20.0, 57.0, 28.0],
        variation,
    );
    assert_near("work, the median", &measured.work[..1], &[1.0], 0.5);
    let work = tolerance.work;
    assert_near(
        "work, the third quartile",
        &measured.work[1..],
        &[5.0],
        work,
    );
    let memory = tolerance.memory;
    assert_near("memory in MiB", &measured.memory, &[175.0, 400.0], memory);
}

/// The mean of what is measured in several traces.
#[expect(clippy::cast_precision_loss, reason = "a figure to compare")]
fn mean(all: &[Measured]) -> Measured {
    fn of<const N: usize>(all: &[Measured], of: impl Fn(&Measured) -> [f64; N]) -> [f64; N] {
        let sum = |nth: usize| all.iter().map(|one| of(one)[nth]).sum::<f64>();
        std::array::from_fn(|nth| sum(nth) / all.len() as f64)
    }
    let [hourly, minutely] = of(all, |one| [one.hourly, one.minutely]);
    Measured {
        functions: of(all, |one| one.functions),
        requests: of(all, |one| one.requests),
        sizes: of(all, |one| one.sizes),
        hourly,
        minutely,
        variation: of(all, |one| one.variation),
        work: of(all, |one| one.work),
        memory: of(all, |one| one.memory),
    }
}

/// As `hearth simulate --synthetic` makes them where nothing else is asked for. Two hundred apps are
/// drawn: that many lie apart by chance as far as this.
#[test]
fn what_was_published_is_in_every_trace() {
    let chance = Tolerance {
        requests: 2.5,
        hourly: 2.5,
        variation: 6.0,
        work: 2.0,
        memory: 100.0,
    };
    for seed in [1, 2, 3, 1000] {
        let synthetic = Generator::Published.with(seed);
        check(&measure(&synthetic.trace().expect("a trace")), &chance);
    }
}

/// As `cargo xtask bench policy` takes them: a quarter of the apps, and several traces together.
/// Where there are few functions the busiest one's trigger has too large a share of the requests.
/// It is a label: when who is asked is the same, and no policy sees it.
#[test]
fn what_was_published_is_in_many_small_traces() {
    let measured: Vec<Measured> = (1000..1008)
        .map(|seed| {
            let published = Generator::Published.with(seed);
            let apps = published.apps / 4;
            let small = Synthetic { apps, ..published };
            measure(&small.trace().expect("a trace"))
        })
        .collect();
    let tolerance = Tolerance {
        requests: 8.0,
        hourly: 2.0,
        variation: 4.0,
        work: 2.0,
        memory: 35.0,
    };
    check(&mean(&measured), &tolerance);
}

#[test]
fn the_same_seed_makes_the_same_trace() {
    let trace = |seed| {
        let some = Synthetic {
            apps: 20,
            ..Generator::Published.with(seed)
        };
        some.trace().expect("a trace")
    };
    assert_eq!(trace(7), trace(7));
    assert_ne!(trace(7), trace(8));
}
