//! What was published, measured in traces that were made up.

use std::collections::BTreeMap;

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

/// What was published, measured in a trace of this kind.
fn check(synthetic: &Synthetic) {
    let trace = synthetic.trace().expect("a trace");
    let measured = measure(&trace);
    assert_near("functions", &measured.functions, &FUNCTIONS, 1.0);
    assert_near("requests", &measured.requests, &REQUESTED, 2.5);
    let sizes = SIZES.map(|(share, ..)| share);
    assert_near("functions of an app", &measured.sizes, &sizes, 1.0);
    assert_near("apps at most hourly", &[measured.hourly], &[45.0], 2.0);
    assert_near(
        "apps at most once a minute",
        &[measured.minutely],
        &[80.0],
        1.0,
    );
    assert_near("variation", &measured.variation, &[20.0, 57.0, 28.0], 4.0);
    assert_near("work, by the median", &measured.work, &[1.0, 5.0], 1.0);
    assert_near("memory in MiB", &measured.memory, &[175.0, 400.0], 35.0);
}

fn some(seed: u64) -> Synthetic {
    Synthetic {
        apps: 600,
        busiest: 10.0,
        ..Generator::Published.with(seed)
    }
}

#[test]
fn what_was_published_is_in_every_trace() {
    for seed in 1..=3 {
        check(&some(seed));
    }
}

#[test]
fn the_same_seed_makes_the_same_trace() {
    let trace = |seed| {
        let some = Synthetic {
            apps: 20,
            ..some(seed)
        };
        some.trace().expect("a trace")
    };
    assert_eq!(trace(7), trace(7));
    assert_ne!(trace(7), trace(8));
}
