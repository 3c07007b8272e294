//! Traces that are made up, from a seed.
//!
//! What was published of Azure Functions (Shahrad et al., "Serverless in the Wild", USENIX ATC 2020)
//! is held in each trace, small ones too, as its tests show: what functions are asked by and how
//! much, functions per app, how often apps are asked and how regularly, how long requests take, and
//! how much memory apps have. Two things are not: the few apps that are asked thousands of times a
//! minute, which never start cold, are asked [`Synthetic::busiest`] times at most; and how long a
//! start takes was not published.

mod gaps;
mod generator;
mod triggers;

use std::time::Duration;

use super::super::Moment;
use super::draw::Draw;
use super::trace::{Builder, Function, TooMany, Trace};
use gaps::{Gaps, Pattern};

pub use generator::{Generator, UnknownGenerator};

/// Requests of one trace at most: 320 MB of them.
const REQUESTS: usize = 20_000_000;
const MINUTE: f64 = 60.0;
const HOUR: f64 = 3600.0;
const DAY: f64 = 24.0 * HOUR;
const MIB: f64 = 1024.0 * 1024.0;

/// Shares of apps with so many functions. The last has no end in the paper.
const SIZES: [(f64, usize, usize); 6] = [
    (54.0, 1, 1),
    (16.0, 2, 2),
    (10.0, 3, 3),
    (8.0, 4, 5),
    (7.0, 6, 10),
    (5.0, 11, 20),
];
/// Up to which share of apps is asked how often at most, in requests a second.
const RATES: [(f64, f64); 3] = [(0.0, 1.0 / DAY), (0.45, 1.0 / HOUR), (0.80, 1.0 / MINUTE)];
/// Periods of what is asked by a clock, in seconds.
const PERIODS: [f64; 12] = [
    60.0, 120.0, 300.0, 600.0, 900.0, 1800.0, HOUR, 7200.0, 14400.0, 21600.0, 43200.0, DAY,
];
/// Where the time at work is about log-normal: the paper's fit has a sigma of 2.36, too.
const WORK_SIGMA: f64 = 2.386;
/// From the median and the 90th percentile of the memory of apps.
const MEMORY_SIGMA: f64 = 0.645;

/// Instances of a function that are at work on average, at most: more are not on one node.
const BUSY: f64 = 10.0;

/// What a made-up trace is like.
#[derive(Clone, Debug, PartialEq)]
pub struct Synthetic {
    /// What all draws come from.
    pub seed: u64,
    /// Apps; a third of functions.
    pub apps: usize,
    /// How long it is.
    pub length: Duration,
    /// Requests a minute for the busiest app.
    pub busiest: f64,
    /// Shares of apps that are asked periodically, regularly, irregularly, and in bursts.
    pub patterns: [f64; 4],
    /// Requests in a burst, on average.
    pub burst: f64,
    /// Time between the requests of a burst, on average.
    pub within_burst: Duration,
    /// How much the rate rises and falls over a day: by this share of its mean.
    pub diurnal: f64,
    /// The median app's time to start.
    pub start: Duration,
    /// The median function's mean time at work.
    pub work: Duration,
    /// The median app's memory, in MiB.
    pub memory_mib: f64,
}

/// One app while the trace is made.
struct App {
    pattern: Pattern,
    /// Requests a second.
    rate: f64,
    /// Numbers of its functions, and the share of its requests that each gets.
    functions: Vec<(u32, f64)>,
}

impl Synthetic {
    /// Makes the trace.
    pub fn trace(&self) -> Result<Trace, TooMany> {
        let mut draw = Draw::new(self.seed);
        let mut builder = Builder::new(REQUESTS);
        let apps = self.apps(&mut draw.fork(), &mut builder);
        triggers::assign(&apps, &mut draw.fork(), &mut builder);
        let mut works = draw.fork();
        let mut times = draw.fork();
        for app in &apps {
            let means: Vec<f64> = app
                .functions
                .iter()
                .map(|(_, share)| {
                    let mean = works.log_normal(self.work.as_secs_f64(), WORK_SIGMA);
                    let longest = BUSY / (app.rate * share);
                    mean.clamp(0.001, 300.0).min(longest)
                })
                .collect();
            self.requests(app, &means, &mut times.fork(), &mut builder)?;
        }
        Ok(builder.finish(Moment(self.length)))
    }

    /// The apps, from the one that is asked least to the one that is asked most.
    #[expect(clippy::cast_precision_loss, reason = "a small whole number")]
    fn apps(&self, draw: &mut Draw, builder: &mut Builder) -> Vec<App> {
        let sizes = draw.deal(&SIZES.map(|(share, ..)| share), self.apps);
        let patterns = self.deal_patterns(draw);
        let each = sizes.into_iter().zip(patterns).enumerate();
        each.map(|(index, (size, pattern))| {
            let rank = (index as f64 + draw.unit()) / self.apps as f64;
            let rate = match (self.rate(rank), pattern) {
                (rate, Pattern::Periodic) => 1.0 / period(rate),
                (rate, _) => rate,
            };
            let (_, least, most) = SIZES.get(size).copied().unwrap_or((0.0, 1, 1));
            let functions = least + draw.below(most - least + 1);
            let memory = draw.log_normal(self.memory_mib, MEMORY_SIGMA);
            let start = draw.log_normal(self.start.as_secs_f64(), 0.6);
            let weights = (1..=functions).map(|nth| (nth as f64).powf(-1.2));
            let whole: f64 = weights.clone().sum();
            let add = |(nth, weight): (usize, f64)| {
                let function = builder.function(Function {
                    name: format!("app-{index}-{nth}"),
                    app: format!("app-{index}"),
                    trigger: None,
                    memory_bytes: bytes(memory.clamp(16.0, 16_384.0)),
                    start: Duration::from_secs_f64(start.clamp(0.02, 60.0)),
                });
                let share = match pattern {
                    Pattern::Periodic => 1.0 / functions as f64,
                    _ => weight / whole,
                };
                (function, share)
            };
            App {
                pattern,
                rate,
                functions: weights.enumerate().map(add).collect(),
            }
        })
        .collect()
    }

    /// A clock asks once a minute at most, so that the busiest apps have other patterns.
    fn deal_patterns(&self, draw: &mut Draw) -> Vec<Pattern> {
        const ALL: [Pattern; 4] = [
            Pattern::Periodic,
            Pattern::Regular,
            Pattern::Irregular,
            Pattern::Bursty,
        ];
        let [periodic, rest @ ..] = self.patterns;
        let others: f64 = rest.iter().sum();
        let whole = periodic + others;
        let share = (periodic / whole / RATES[2].0).min(1.0);
        let [regular, irregular, bursty] = rest.map(|share| share / others);
        let below = self.apps * 4 / 5;
        let mut cards = draw.deal(
            &[
                share,
                (1.0 - share) * regular,
                (1.0 - share) * irregular,
                (1.0 - share) * bursty,
            ],
            below,
        );
        cards.extend(draw.deal(&[0.0, regular, irregular, bursty], self.apps - below));
        let pattern = |card: usize| ALL.get(card).copied().unwrap_or(Pattern::Regular);
        cards.into_iter().map(pattern).collect()
    }

    /// Requests a second of the app that so large a share of all is asked less than.
    fn rate(&self, rank: f64) -> f64 {
        let busiest = (1.0, (self.busiest / MINUTE).max(RATES[2].1));
        let knots = [RATES[0], RATES[1], RATES[2], busiest];
        let above = knots.iter().position(|(share, _)| *share > rank);
        let above = above.unwrap_or(3).clamp(1, 3);
        let ((from, slow), (to, fast)) = (knots[above - 1], knots[above]);
        slow * (fast / slow).powf((rank - from) / (to - from))
    }

    fn requests(
        &self,
        app: &App,
        means: &[f64],
        draw: &mut Draw,
        builder: &mut Builder,
    ) -> Result<(), TooMany> {
        let length = self.length.as_secs_f64();
        let mut gaps = Gaps::new(self, app, draw);
        // Everybody's day is about the same.
        let phase = draw.between(-0.5, 0.5);
        let mut at = gaps.first(draw);
        let mut nth = 0;
        let mut turn = pick(&app.functions, draw);
        while at < length {
            let is_other = gaps.is_new || app.pattern != Pattern::Bursty;
            if app.pattern == Pattern::Periodic {
                turn = nth % app.functions.len();
            } else if is_other {
                turn = pick(&app.functions, draw);
            }
            nth += 1;
            let time = match app.pattern {
                Pattern::Periodic => at + draw.between(0.0, 0.05),
                _ => self.by_day(at, phase),
            };
            let mean = means.get(turn).copied().unwrap_or(1.0);
            // Its mean is `mean`.
            let work = draw.log_normal(mean * (-0.125_f64).exp(), 0.5);
            if let Some((function, _)) = app.functions.get(turn)
                && time < length
            {
                let at = Moment(Duration::from_secs_f64(time));
                builder.arrive(*function, at, Duration::from_secs_f64(work.min(1800.0)))?;
            }
            at += gaps.next(draw);
        }
        Ok(())
    }

    /// When something is that would be `at` if all hours were alike: time passes faster by day.
    fn by_day(&self, at: f64, phase: f64) -> f64 {
        use std::f64::consts::TAU;
        let depth = self.diurnal.clamp(0.0, 0.95) * DAY / TAU;
        let done = |time: f64| time + depth * (phase.cos() - (TAU * time / DAY + phase).cos());
        let (mut from, mut to) = ((at - 2.0 * depth).max(0.0), at + 2.0 * depth);
        while to - from > 1e-4 {
            let middle = f64::midpoint(from, to);
            if done(middle) < at {
                from = middle;
            } else {
                to = middle;
            }
        }
        to
    }
}

/// One of an app's functions.
fn pick(functions: &[(u32, f64)], draw: &mut Draw) -> usize {
    let mut left = draw.unit();
    let stops = |(_, share): &(u32, f64)| {
        left -= share;
        left < 0.0
    };
    functions.iter().position(stops).unwrap_or(0)
}

/// The usual period that is the next to that of so many requests a second.
fn period(rate: f64) -> f64 {
    let apart = |period: &f64| (period * rate).ln().abs();
    let nearest = PERIODS
        .into_iter()
        .min_by(|a, b| apart(a).total_cmp(&apart(b)));
    nearest.unwrap_or(HOUR)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "clamped"
)]
fn bytes(mebibytes: f64) -> u64 {
    (mebibytes * MIB) as u64
}

#[cfg(test)]
mod marginals;
