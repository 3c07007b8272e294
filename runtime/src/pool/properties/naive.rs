//! What each policy is to say at each look of a history, as it is defined: told from all of the
//! history each time.

use std::time::Duration;

use super::super::Moment;
use super::history::{History, Look};

/// The instances there should be at least, and for how long one above that is kept.
pub(super) type Decision = (u32, Duration);

const MINUTE: Duration = Duration::from_mins(1);
const COOL_DOWN: Duration = Duration::from_mins(5);

/// ceil(lambda S + lambda L + z sqrt(D lambda L)), told anew when ten seconds are over, a start was
/// measured or the first request came. It ends where rounding decides whether there is one more.
pub(super) fn quantile(history: &History, z: f64) -> Vec<Decision> {
    let (mut news, mut least, mut most) = (None, Vec::new(), Vec::new());
    let mut targets = Vec::new();
    for look in &history.looks {
        let told = (stretch(look.seen.now), look.starts);
        if news.replace(told) != Some(told) {
            // The policy's z is right to half a thousandth.
            least.push(needed(history, look, z - 5e-4) - 1e-9);
            most.push(needed(history, look, z + 5e-4) + 1e-9);
        }
        if steady(&least) != steady(&most) {
            break;
        }
        targets.push((look.seen.now, steady(&least)));
    }
    let damped = damped(&targets).into_iter();
    damped.map(|target| (target, MINUTE)).collect()
}

fn stretch(now: Moment) -> u64 {
    now.0.as_secs() / 10
}

#[expect(clippy::cast_precision_loss, reason = "small whole numbers")]
fn needed(history: &History, look: &Look, z: f64) -> f64 {
    let arrivals = &history.arrivals[..look.arrivals];
    let current = stretch(look.seen.now);
    let count = |of: u64| arrivals.iter().filter(|at| stretch(**at) == of).count() as f64;
    let first = stretch(arrivals[0]).max(current.saturating_sub(59));
    // A stretch that is not over says little, where there is another one.
    let stretches = if first < current {
        first..current
    } else {
        current..current + 1
    };
    let counts: Vec<f64> = stretches.map(count).collect();
    let (mean, variance) = moments(&counts);
    if mean == 0.0 {
        return count(current).min(1.0);
    }
    let starts = &history.starts[..look.starts];
    let lambda = mean / 10.0;
    let awaited = lambda
        * percentile(starts, 95)
            .unwrap_or(Duration::from_millis(250))
            .as_secs_f64();
    let works = history.works[..look.works]
        .iter()
        .map(Duration::as_secs_f64);
    let work = works
        .reduce(|mean, work| mean * 7.0 / 8.0 + work / 8.0)
        .unwrap_or(0.0);
    lambda * work + awaited + z * (variance / mean * awaited).sqrt()
}

#[expect(clippy::cast_precision_loss, reason = "small whole numbers")]
fn moments(values: &[f64]) -> (f64, f64) {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    (
        mean,
        values
            .iter()
            .map(|value| (value - mean).powi(2))
            .sum::<f64>()
            / count,
    )
}

/// The smallest one that so many percent do not exceed.
fn percentile<T: Copy + Ord>(values: &[T], percent: usize) -> Option<T> {
    let at_most = |top: &T| values.iter().filter(|value| *value <= top).count();
    let is_enough = |top: &T| at_most(top) * 100 >= values.len() * percent;
    values.iter().copied().filter(is_enough).min()
}

/// Shahrad et al.: keeps until 1.1 of the tail, and from 0.9 of the head where that is not in the
/// first minute. On a tiny trace the bins always vary enough.
pub(super) fn hybrid(history: &History) -> Vec<Decision> {
    let looks = history.looks.iter().enumerate();
    looks
        .map(|(nth, look)| windows(history, &history.looks[..=nth], look))
        .collect()
}

fn windows(history: &History, looks: &[Look], look: &Look) -> Decision {
    const RANGE: Duration = Duration::from_hours(4);
    let arrivals = &history.arrivals[..look.arrivals];
    let idle: Vec<Duration> = (1..arrivals.len())
        .map(|nth| idle_before(looks, nth + 1))
        .collect();
    let minutes: Vec<u32> = idle
        .iter()
        .filter(|idle| **idle < RANGE)
        .map(|idle| {
            (1..=240)
                .find(|minute| *idle < MINUTE * *minute)
                .unwrap_or(0)
                - 1
        })
        .collect();
    let beyond: Vec<Duration> = idle.iter().copied().filter(|idle| *idle >= RANGE).collect();
    let (from, until) = if let Some(count) =
        u32::try_from(beyond.len()).ok().filter(|count| *count > 0)
        && beyond.len() >= minutes.len()
    {
        let mean = beyond.iter().sum::<Duration>() / count;
        (Some(mean * 85 / 100), mean * 115 / 100)
    } else if let (Some(head), Some(tail)) = (percentile(&minutes, 5), percentile(&minutes, 99)) {
        let head = Some(MINUTE * head * 9 / 10).filter(|head| !head.is_zero());
        (head, MINUTE * (tail + 1) * 11 / 10)
    } else {
        (None, RANGE)
    };
    let Some(from) = from else { return (0, until) };
    // None is there between the windows, and one in them.
    let is_idle = look.seen.demand == 0;
    let age = look.seen.now.since(idle_since(looks));
    (
        u32::from(is_idle && age >= from && age < until),
        Duration::ZERO,
    )
}

/// How long nobody had asked when the request came that made them so many.
fn idle_before(looks: &[Look], arrivals: usize) -> Duration {
    let came = looks
        .iter()
        .position(|look| look.arrivals == arrivals)
        .unwrap_or(0);
    let before = &looks[..came];
    match before.last() {
        Some(last) if last.seen.demand == 0 => looks[came].seen.now.since(idle_since(before)),
        _ => Duration::ZERO,
    }
}

/// When the last request was done.
fn idle_since(looks: &[Look]) -> Moment {
    let busy = looks.iter().rposition(|look| look.seen.demand > 0);
    busy.and_then(|busy| looks.get(busy + 1))
        .map_or(Moment::default(), |look| look.seen.now)
}

/// Knative: the average demand over 60 s, by 70 %; over 6 s where that wants twice what there is,
/// until it did not for 60 s, and nothing is taken away meanwhile.
pub(super) fn concurrency(history: &History) -> Vec<Decision> {
    let mut targets: Vec<(Moment, u32)> = Vec::new();
    let (mut stable, mut urgent) = (Vec::new(), Vec::new());
    // When it was last wanted, and the targets since it began.
    let mut panic: Option<(Moment, usize)> = None;
    // Since when there was always somebody who had asked in the last 60 s.
    let mut first = None;
    for (nth, look) in history.looks.iter().enumerate() {
        let now = look.seen.now;
        if look.seen.demand > 0 {
            first = first.or(Some(now));
        } else if history.demanded(back(now, 60), now) == 0 {
            first = None;
        }
        stable.push(average(history, look, first, 60) / 0.7);
        urgent.push(average(history, look, first, 6) / 0.7);
        let (stable, urgent) = (steady(&stable), steady(&urgent));
        let there = (look.seen.busy + look.seen.ready).max(1);
        if urgent >= 2 * there {
            panic = Some((now, panic.map_or(nth, |(_, began)| began)));
        }
        panic = panic.filter(|(wanted, _)| now.since(*wanted) <= MINUTE);
        let target = panic.map_or(stable, |(_, began)| {
            let held = targets[began..].iter().map(|(_, target)| *target);
            held.chain([stable, urgent]).max().unwrap_or(0)
        });
        targets.push((now, target));
    }
    damped(&targets)
        .into_iter()
        .map(|target| (target, MINUTE))
        .collect()
}

/// Over so many whole seconds and the one that is not over, as far back as anybody asked.
#[expect(clippy::cast_precision_loss, reason = "a small time")]
fn average(history: &History, look: &Look, first: Option<Moment>, seconds: u64) -> f64 {
    let Some(first) = first else { return 0.0 };
    let now = look.seen.now;
    let from = back(now, seconds).max(first);
    match now.since(from).as_micros() {
        0 => look.seen.demand.into(),
        time => history.demanded(from, now) as f64 / time as f64,
    }
}

fn back(now: Moment, seconds: u64) -> Moment {
    Moment(Duration::from_secs(now.0.as_secs().saturating_sub(seconds)))
}

/// The whole number for what was needed at one look after the other: up at once, down where more
/// than one and a half of it are too many.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a few instances"
)]
fn steady(needed: &[f64]) -> u32 {
    needed.iter().fold(0, |held, needed| {
        let is_kept = *needed > 0.0 && (f64::from(held) - 1.5..=f64::from(held)).contains(needed);
        if is_kept {
            held
        } else {
            needed.max(0.0).ceil() as u32
        }
    })
}

/// Down when it was lower for five minutes, to the highest that it was in them.
fn damped(targets: &[(Moment, u32)]) -> Vec<u32> {
    let mut said: Vec<u32> = Vec::new();
    // Where it was first lower than what is said.
    let mut lower: Option<usize> = None;
    for (nth, (now, target)) in targets.iter().enumerate() {
        let last = said.last().copied().unwrap_or(0);
        if *target >= last {
            lower = None;
            said.push(*target);
            continue;
        }
        let began = *lower.get_or_insert(nth);
        if now.since(targets[began].0) < COOL_DOWN {
            said.push(last);
            continue;
        }
        let highest = targets[began..=nth].iter().map(|(_, target)| *target).max();
        let highest = highest.unwrap_or(0);
        lower = (*target < highest).then_some(nth);
        said.push(highest);
    }
    said
}
