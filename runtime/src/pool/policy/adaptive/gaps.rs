//! When the next request comes, told from when others did.
//!
//! Two things are learned and mixed by how often each was right:
//!
//! - what repeats itself: the time from one request to the next is as long as one of the last few
//!   were, to a thousandth. So does what a clock asks for;
//! - all else: a histogram of idle times whose bins grow by a fifth. The hazard of a bin is what
//!   ended in it by the time spent in it, both blurred over the bins around, and is drawn towards a guess from what is known beyond the
//!   bin: with N idle times that reached it, and R seconds that they lasted from there on, it is
//!   (a + N) / (b + age + R), the mean of a rate that was gamma distributed before anything
//!   was known. So an idle time as long as never before is still judged by the few that were long,
//!   and a function that nothing is known of has the hazard a / (b + age), which falls as the
//!   rates of functions do, that are spread over eight orders of magnitude.

use std::collections::VecDeque;
use std::time::Duration;

/// Idle times that are remembered one by one.
const RECENT: usize = 16;
/// Bins between a time and its double.
const PER_DOUBLING: f64 = 4.0;
/// From a second up to 12 days.
const BINS: usize = 81;
/// How much less each idle time counts than the next one.
const FADING: f64 = 1.0 / 128.0;
/// The same of what repeats.
const REPEATS_FADING: f64 = 1.0 / 32.0;
/// The a and b of the guess, in requests and seconds.
const GUESS: (f64, f64) = (0.35, 30.0);
/// Idle times that the guess counts for in each bin.
const GUESS_WEIGHT: f64 = 3.0;
/// What is taken to repeat itself before anything is known: of how many, how many.
const REPEATS: (f64, f64) = (1.5, 0.3);
/// Over how many bins to each side a bin is blurred: up to a fourth, and four times, of the time.
const BLUR: u32 = 8;
/// A shorter time between requests is not looked at for repeating itself: by chance many do.
const SHORTEST: f64 = 30.0;
/// Two times are alike that differ by this share and so many seconds.
const ALIKE: (f64, f64) = (0.001, 0.2);

/// The idle times of one level of demand.
#[derive(Clone, Debug)]
pub(super) struct Gaps {
    recent: VecDeque<Gap>,
    /// What is not recent any more and was not repeated.
    bins: [f64; BINS],
    /// What the next one counts for in a bin: it grows rather than that all others shrink.
    weight: f64,
    /// How many there were, and how many of them repeated another one. Both fade.
    tries: f64,
    repeats: f64,
}

#[derive(Clone, Copy, Debug)]
struct Gap {
    /// Without a request.
    idle: f64,
    /// From one request to the next.
    period: f64,
}

/// The chance that the next request comes in a stretch of an idle time, if none came before.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Chance {
    pub(super) begin: f64,
    pub(super) end: f64,
    pub(super) comes: f64,
}

/// When something would repeat itself, and the share of recent ones that it repeats.
struct Window {
    begin: f64,
    end: f64,
    share: f64,
}

impl Default for Gaps {
    fn default() -> Self {
        Self {
            recent: VecDeque::new(),
            bins: [0.0; BINS],
            weight: 1.0,
            tries: 0.0,
            repeats: 0.0,
        }
    }
}

impl Gaps {
    /// It was idle for so long, and the next request came so long after the last one.
    pub(super) fn learn(&mut self, idle: Duration, period: Duration) {
        let gap = Gap {
            idle: idle.as_secs_f64(),
            period: period.as_secs_f64(),
        };
        if !self.recent.is_empty() {
            let is_repeat = self.repeats(gap);
            self.tries += 1.0 - self.tries * REPEATS_FADING;
            self.repeats += f64::from(u8::from(is_repeat)) - self.repeats * REPEATS_FADING;
        }
        if self.recent.len() >= RECENT
            && let Some(oldest) = self.recent.pop_front()
            && !self.repeats(oldest)
        {
            self.weight *= 1.0 + FADING;
            self.bins[bin(oldest.idle)] += self.weight;
            if self.weight > 1e9 {
                self.bins = self.bins.map(|bin| bin / self.weight);
                self.weight = 1.0;
            }
        }
        self.recent.push_back(gap);
    }

    fn repeats(&self, gap: Gap) -> bool {
        self.recent.iter().any(|recent| alike(*recent, gap))
    }

    /// Stretches of the idle time that begins `busy` after the last request, one after another.
    pub(super) fn chances(&self, busy: Duration) -> Vec<Chance> {
        let bins = self.histogram();
        let mut windows = self.windows(busy.as_secs_f64()).into_iter().peekable();
        let hazards = hazards(&bins);
        // The probabilities that nothing came yet, and what comes repeats itself or does not.
        let mut repeats = self.repeating();
        let mut others = 1.0 - repeats;
        let of_share = repeats;
        let mut chances = Vec::with_capacity(BINS + 2 * RECENT);
        for (index, hazard) in hazards.into_iter().enumerate() {
            let (begin, end) = (edge(index), edge(index + 1));
            let mut from = begin;
            while from < end {
                let (mut until, mut repeated) = (end, 0.0);
                if let Some(window) = windows.peek_mut() {
                    if window.begin > from {
                        until = end.min(window.begin);
                    } else {
                        until = end.min(window.end);
                        let share = window.share * (until - from) / (window.end - from);
                        window.share -= share;
                        repeated = (of_share * share).min(repeats);
                        if until >= window.end {
                            windows.next();
                        }
                    }
                }
                let other = others * -(-hazard * (until - from)).exp_m1();
                let all = others + repeats;
                let comes = if all > 0.0 {
                    (other + repeated) / all
                } else {
                    0.0
                };
                chances.push(Chance {
                    begin: from,
                    end: until,
                    comes: comes.min(1.0),
                });
                others -= other;
                repeats -= repeated;
                from = until;
            }
        }
        chances
    }

    /// All that was not repeated, by bins.
    fn histogram(&self) -> [f64; BINS] {
        let mut bins = self.bins.map(|bin| bin / self.weight);
        for (index, gap) in self.recent.iter().enumerate() {
            let others = self.recent.iter().enumerate();
            let mut others = others.filter(|(other, _)| *other != index);
            if !others.any(|(_, other)| alike(*other, *gap)) {
                bins[bin(gap.idle)] += 1.0;
            }
        }
        bins
    }

    /// The probability that the next one repeats another one.
    fn repeating(&self) -> f64 {
        if self.recent.is_empty() {
            return 0.0;
        }
        (self.repeats + REPEATS.1) / (self.tries + REPEATS.0)
    }

    /// In order, and none touches another.
    fn windows(&self, busy: f64) -> Vec<Window> {
        let mut periods: Vec<f64> = self.recent.iter().map(|gap| gap.period).collect();
        periods.sort_unstable_by(f64::total_cmp);
        let count = u32::try_from(periods.len()).unwrap_or(u32::MAX);
        let share = 1.0 / f64::from(count.max(1));
        let mut windows: Vec<Window> = Vec::with_capacity(periods.len());
        for period in periods.into_iter().filter(|period| *period >= SHORTEST) {
            let (begin, end) = (period - tolerance(period), period + tolerance(period));
            let (begin, end) = (begin - busy, end - busy);
            if begin < 0.0 {
                continue;
            }
            match windows.last_mut() {
                Some(last) if last.end >= begin => {
                    last.end = end;
                    last.share += share;
                }
                _ => windows.push(Window { begin, end, share }),
            }
        }
        windows
    }
}

/// The hazard of each bin, from what ended in it.
fn hazards(bins: &[f64; BINS]) -> [f64; BINS] {
    let width = |index| edge(index + 1) - edge(index);
    let middle = |index| f64::midpoint(edge(index), edge(index + 1));
    // How many reached each bin, and for how long they were in it.
    let mut reached = [0.0; BINS];
    let mut spent = [0.0; BINS];
    let mut left = 0.0;
    for index in (0..BINS).rev() {
        spent[index] = (left + bins[index] / 2.0) * width(index);
        left += bins[index];
        reached[index] = left;
    }
    let (ended, blurred) = (blur(bins), blur(&spent));
    let mut beyond: f64 = spent.iter().sum();
    std::array::from_fn(|index| {
        let guess = (GUESS.0 + reached[index]) / (GUESS.1 + middle(index) + beyond);
        beyond -= spent[index];
        let weight = GUESS_WEIGHT * width(index);
        (ended[index] + weight * guess) / (blurred[index] + weight)
    })
}

/// The less of the other bins, the farther they are.
fn blur(bins: &[f64; BINS]) -> [f64; BINS] {
    std::array::from_fn(|index| {
        let reach = BLUR as usize;
        let around = index.saturating_sub(reach)..(index + reach + 1).min(BINS);
        let part = |other: usize| {
            let far = u32::try_from(other.abs_diff(index)).unwrap_or(u32::MAX);
            bins[other] * (1.0 - f64::from(far) / f64::from(BLUR + 1))
        };
        around.map(part).sum()
    })
}

/// Whether one repeats the other.
fn alike(a: Gap, b: Gap) -> bool {
    let least = a.period.min(b.period);
    least >= SHORTEST && (a.period - b.period).abs() <= tolerance(least)
}

fn tolerance(period: f64) -> f64 {
    period * ALIKE.0 + ALIKE.1
}

/// The bin of an idle time.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a cast of a float saturates"
)]
fn bin(idle: f64) -> usize {
    if idle < 1.0 {
        return 0;
    }
    ((idle.log2() * PER_DOUBLING) as usize + 1).min(BINS - 1)
}

/// Where a bin begins.
#[expect(clippy::cast_precision_loss, reason = "a small whole number")]
fn edge(index: usize) -> f64 {
    match index {
        0 => 0.0,
        _ => ((index - 1) as f64 / PER_DOUBLING).exp2(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn learned(idle: impl IntoIterator<Item = f64>) -> Gaps {
        let mut gaps = Gaps::default();
        for idle in idle {
            let idle = Duration::from_secs_f64(idle);
            gaps.learn(idle, idle);
        }
        gaps
    }

    /// That something comes between these ages if nothing came before.
    fn comes(gaps: &Gaps, from: f64, to: f64) -> f64 {
        let chances = gaps.chances(Duration::ZERO);
        let inside = chances
            .iter()
            .filter(|chance| chance.begin >= from && chance.end <= to);
        1.0 - inside.map(|chance| 1.0 - chance.comes).product::<f64>()
    }

    #[test]
    fn what_is_to_be_expected_is_told_for_all_of_the_time_without_a_hole() {
        let gaps = learned((1..200).map(|nth| f64::from(nth * nth % 977)));
        let chances = gaps.chances(Duration::from_secs(3));
        assert!(chances.first().is_some_and(|first| first.begin <= 0.0));
        assert!(
            chances
                .iter()
                .all(|chance| (0.0..=1.0).contains(&chance.comes))
        );
        assert!(
            chances
                .windows(2)
                .all(|two| two[0].end.total_cmp(&two[1].begin).is_eq())
        );
        assert!(chances.last().is_some_and(|last| last.end > 1e6));
    }

    #[test]
    fn the_longer_nothing_comes_the_less_is_expected_of_what_is_unknown() {
        let gaps = Gaps::default();
        let ages = [1.0, 16.0, 256.0, 4096.0, 65536.0];
        let hazards = ages.map(|age| comes(&gaps, age, 2.0 * age) / age);
        assert!(hazards.is_sorted_by(|a, b| a > b), "{hazards:?}");
    }

    /// Idle times of 200 s on average that forget how long they lasted, by inverting the
    /// distribution at even steps.
    #[test]
    fn what_comes_by_chance_is_as_likely_at_all_ages() {
        let step = |nth: u32| -200.0 * (1.0 - f64::from(nth * 37 % 101) / 101.0).ln();
        let gaps = learned((0..300).map(step));
        for (from, to) in [(0.0, 64.0), (64.0, 128.0), (128.0, 256.0), (256.0, 512.0)] {
            let right = 1.0 - ((from - to) / 200.0_f64).exp();
            let chance = comes(&gaps, from, to);
            assert!((chance - right).abs() < 0.1, "{from}: {chance} {right}");
        }
    }

    /// After one time it is thought of, after some it is all that is expected.
    #[test]
    fn what_repeats_itself_is_foretold_to_the_second() {
        let once = learned([3600.0]);
        let (then, before) = (comes(&once, 3585.0, 3615.0), comes(&once, 3444.0, 3588.0));
        assert!(then > 4.0 * before, "{then} {before}");
        let often = learned([3600.0; 20]);
        let chances = often.chances(Duration::from_mins(1));
        let best = chances.iter().max_by(|a, b| a.comes.total_cmp(&b.comes));
        let best = best.expect("some");
        assert!(best.comes > 0.9, "{best:?}");
        assert!(
            (3520.0..3540.0).contains(&best.begin) && best.end < 3560.0,
            "{best:?}"
        );
    }
}
