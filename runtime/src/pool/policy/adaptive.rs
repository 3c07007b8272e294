//! An instance is kept only while it is worth its memory, and is there again before it is needed.
//!
//! What is learned of a function is how long it is idle between requests. From that comes the chance
//! that the next request arrives at each age of the idle time ([`Gaps`]), and from that the times at
//! which an instance is worth having ([`Times`]): for a short time dt it costs dt times its memory,
//! and it saves a cold start with the probability hazard(age) dt, where the hazard is the rate of
//! requests at an age that none came before. The price of a cold start is the one thing to choose.
//! It is in seconds that a typical instance of the node waits for work, so that it means the same
//! on a node with small functions and on one with large ones: an instance of twice the memory is
//! kept at twice the hazard.
//!
//! No one price suits all loads: where requests are rare the same price spends less on idle instances
//! and has more cold starts than other ways to keep them, where they are frequent it is the other way
//! around. So it falls and rises with what the node spends, by what it would spend in two of those
//! ways. Each policy tells of its function what was idle, and what would have been ([`Spent`]); the
//! fleet says what that makes on the node.
//!
//! The second instance of a function is needed when a request comes while one is at work, the third
//! while two are, and so on: each of these levels of demand learns for itself. There should be as
//! many instances as the highest level that is worth one. What is worth one is started as long
//! ahead as starts take, by the 95th percentile of those that were measured.

mod gaps;
mod times;

use std::time::Duration;

use super::super::Moment;
use super::super::starts::Starts;
use super::{Hybrid, Plan, Policy, Seen, Spent};
use gaps::Gaps;
use times::Times;

/// Levels of demand that learn for themselves.
const LEVELS: usize = 256;
/// How long an instance beyond these levels is kept.
const BEYOND: Duration = Duration::from_mins(1);
/// What a level learned is made use of once in this time at most: the busiest learn the least anew.
const LOOK: Duration = Duration::from_secs(1);
/// How much earlier an instance is started than a start takes.
const MARGIN: Duration = Duration::from_millis(100);

/// For how long an instance is kept most anywhere.
const FIXED: Duration = Duration::from_mins(10);
/// By which power the price falls with what is spent,
const STEEP: i32 = 16;
/// and how far it may fall and rise.
const RANGE: (f64, f64) = (1.0 / 6.0, 8.0 / 3.0);

/// Keeps an instance while it is worth its memory.
#[derive(Clone, Debug)]
pub struct Adaptive {
    price: Duration,
    levels: Vec<Level>,
    demand: usize,
    starts: Starts,
    hybrid: Hybrid,
    spent: Spent,
    /// When it last said how many are to be idle, how many that were, and the bytes of one.
    said: (Moment, u32, u64),
}

/// What is known of the requests that come while a certain number is at work.
#[derive(Clone, Debug, Default)]
struct Level {
    gaps: Gaps,
    /// When the last of them came.
    last: Moment,
    /// Since when no more than that are at work.
    idle: Option<Moment>,
    times: Times,
    looked: Option<Moment>,
    /// Until when it is counted what was idle in other ways to keep one.
    counted: Moment,
}

impl Adaptive {
    /// A cold start is worth it that a typical instance waits for work for so long.
    #[must_use]
    pub fn new(price: Duration) -> Self {
        Self {
            price,
            levels: Vec::new(),
            demand: 0,
            starts: Starts::default(),
            hybrid: Hybrid::default(),
            spent: Spent::default(),
            said: (Moment::default(), 0, 0),
        }
    }

    /// Adds what was spent until now.
    fn spend(&mut self, now: Moment) {
        let (since, idle, bytes) = self.said;
        self.spent.ours += now.since(since).as_secs_f64() * f64::from(idle) * float(bytes);
        self.said.0 = now;
        let levels = self.levels.iter_mut().zip(0..).skip(self.demand);
        for (level, nth) in levels {
            let [fixed, histogram] = level.would(now, &self.hybrid, nth == 0);
            self.spent.fixed += fixed.as_secs_f64() * float(bytes);
            self.spent.hybrid += histogram.as_secs_f64() * float(bytes);
        }
    }

    /// What a cold start is worth while the node spends so much.
    fn price(&self, spent_permille: u32) -> f64 {
        let price = self.price.as_secs_f64();
        if spent_permille == 0 {
            return price;
        }
        let factor = (1000.0 / f64::from(spent_permille)).powi(STEEP);
        price * factor.clamp(RANGE.0, RANGE.1)
    }
}

impl Level {
    /// For how long an instance would have been there in either way since this was last asked.
    fn would(&mut self, now: Moment, hybrid: &Hybrid, is_first: bool) -> [Duration; 2] {
        let Some(idle) = self.idle else {
            return [Duration::ZERO; 2];
        };
        let (from, until) = (self.counted.since(idle), now.since(idle));
        self.counted = now;
        let kept = |age| [FIXED.min(age), hybrid.kept(age, is_first)];
        let (from, until) = (kept(from), kept(until));
        [0, 1].map(|way| until[way].saturating_sub(from[way]))
    }

    /// When that is to be asked again.
    fn again(&self, now: Moment, hybrid: &Hybrid) -> Option<Moment> {
        let idle = self.idle?;
        let ends = [FIXED, hybrid.until()].map(|end| idle.after(end));
        ends.into_iter().filter(|end| *end > now).min()
    }

    fn arrived(&mut self, now: Moment) {
        if let Some(idle) = self.idle.take() {
            self.gaps.learn(now.since(idle), now.since(self.last));
        }
        self.last = now;
    }

    /// Whether an instance is worth having, and until when that stays so. A second of one costs
    /// `rent` cold starts.
    fn at(&mut self, now: Moment, rent: f64, lead: Duration) -> (bool, Option<Moment>) {
        let idle = *self.idle.get_or_insert(now);
        let is_due = |looked| idle > looked && idle.since(looked) >= LOOK;
        if self.looked.is_none_or(is_due) {
            self.looked = Some(now);
            let chances = self.gaps.chances(idle.since(self.last));
            self.times = Times::of(&chances, rent);
        }
        let (is_worth, until) = self.times.at(now.since(idle), lead);
        (is_worth, until.map(|age| idle.after(age)))
    }
}

impl Policy for Adaptive {
    fn arrived(&mut self, now: Moment) {
        self.spend(now);
        self.hybrid.arrived(now);
        if let Some(level) = self.levels.get_mut(self.demand) {
            level.arrived(now);
        } else if self.levels.len() < LEVELS {
            self.levels.push(Level {
                last: now,
                ..Level::default()
            });
        }
        self.demand += 1;
    }

    fn served(&mut self, _: Moment, _: Duration) {}

    fn spent(&mut self) -> Spent {
        std::mem::take(&mut self.spent)
    }

    fn measured(&mut self, _: Moment, start: Duration) {
        self.starts.measured(start);
    }

    fn plan(&mut self, seen: Seen) -> Plan {
        self.spend(seen.now);
        self.demand = seen.demand as usize;
        self.hybrid.plan(seen);
        let lead = self.starts.p95() + MARGIN;
        let share = float(seen.memory_bytes) / float(seen.typical_bytes.max(1));
        let rent = share / self.price(seen.spent_permille);
        let mut target = seen.demand;
        let mut again = None;
        for (level, needs) in self.levels.iter_mut().zip(1..).skip(self.demand) {
            let (is_worth, until) = level.at(seen.now, rent, lead);
            if is_worth {
                target = needs;
            }
            let counts = level.again(seen.now, &self.hybrid);
            again = again.into_iter().chain(until).chain(counts).min();
        }
        let there = seen.busy + seen.ready + seen.starting;
        let idle = seen.ready.saturating_sub(there.saturating_sub(target));
        self.said = (seen.now, idle, seen.memory_bytes);
        Plan {
            target,
            keep_alive: if self.demand < LEVELS {
                Duration::ZERO
            } else {
                BEYOND
            },
            again,
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a share")]
const fn float(bytes: u64) -> f64 {
    bytes as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A function whose memory is that of a typical one; starts take 2 s.
    struct Scene {
        policy: Adaptive,
        seen: Seen,
    }

    impl Scene {
        fn new(price: u64) -> Self {
            let mut policy = Adaptive::new(Duration::from_secs(price));
            policy.measured(Moment::default(), Duration::from_secs(2));
            let seen = Seen {
                memory_bytes: 1 << 27,
                typical_bytes: 1 << 27,
                ..Seen::default()
            };
            Self { policy, seen }
        }

        /// So many come at once, each is done at once.
        fn burst(&mut self, seconds: f64, count: u32) {
            for nth in 1..=count {
                self.policy
                    .arrived(Moment(Duration::from_secs_f64(seconds)));
                self.plan(seconds, nth);
            }
            for left in (0..count).rev() {
                self.plan(seconds, left);
            }
        }

        fn plan(&mut self, seconds: f64, demand: u32) -> Plan {
            self.seen.now = Moment(Duration::from_secs_f64(seconds));
            self.seen.demand = demand;
            self.policy.plan(self.seen)
        }
    }

    #[test]
    fn what_a_clock_asks_for_goes_and_is_there_again_in_time() {
        let mut scene = Scene::new(1200);
        for hour in 0..10 {
            scene.burst(f64::from(hour) * 3600.0, 1);
        }
        let last = 9.0 * 3600.0;
        assert_eq!(scene.plan(last + 1800.0, 0).target, 0);
        let again = scene.plan(last + 1800.0, 0).again.expect("it is foretold");
        let ahead = last + 3600.0 - again.0.as_secs_f64();
        assert!((2.0..30.0).contains(&ahead), "{ahead}");
        assert_eq!(scene.plan(again.0.as_secs_f64(), 0).target, 1);
    }

    #[test]
    fn there_are_as_many_as_usually_come_at_once() {
        let mut scene = Scene::new(1200);
        for nth in 0..100 {
            scene.burst(f64::from(nth) * 50.0 + f64::from(nth * 7 % 10), 3);
        }
        assert_eq!(scene.plan(4_980.0, 0).target, 3);
        assert_eq!(scene.plan(4_980.0, 3).target, 3);
        // When nothing comes for long, nothing is kept.
        assert_eq!(scene.plan(100_000.0, 0).target, 0);
    }

    #[test]
    fn a_higher_price_keeps_one_for_longer_and_more_memory_for_less() {
        let kept = |price, memory_bytes| {
            let mut scene = Scene::new(price);
            scene.seen.memory_bytes = memory_bytes;
            scene.burst(0.0, 1);
            let plan = scene.plan(0.0, 0);
            assert_eq!(plan.target, 1);
            plan.again.expect("it ends").0
        };
        assert!(kept(2400, 1 << 27) > kept(1200, 1 << 27));
        assert!(kept(1200, 1 << 28) < kept(1200, 1 << 27));
        assert_eq!(kept(2400, 1 << 28), kept(1200, 1 << 27));
    }

    #[test]
    fn the_more_the_node_spends_the_sooner_one_goes() {
        let kept = |spent_permille| {
            let mut scene = Scene::new(1200);
            scene.seen.spent_permille = spent_permille;
            scene.burst(0.0, 1);
            scene.policy.levels[0].times.clone()
        };
        let until = |permille| kept(permille).at(Duration::ZERO, Duration::ZERO).1;
        assert!(until(1050) < until(1000) && until(1000) < until(950));
        assert_eq!(until(0), until(1000));
        // However much that is.
        assert_eq!(until(9000), until(3000));
    }

    #[test]
    fn what_is_spent_is_told_beside_what_others_would() {
        let mut scene = Scene::new(1200);
        scene.burst(0.0, 1);
        scene.seen.ready = 1;
        scene.plan(0.0, 0);
        for seconds in [100.0, 900.0, 5_000.0, 50_000.0] {
            scene.seen.ready = scene.plan(seconds, 0).target;
        }
        let spent = scene.policy.spent();
        let bytes = f64::from(1 << 27);
        assert!(spent.ours > 0.0, "{spent:?}");
        assert!((spent.fixed / bytes - 600.0).abs() < 1e-6, "{spent:?}");
        assert!((spent.hybrid / bytes - 14_400.0).abs() < 1e-6, "{spent:?}");
        assert_eq!(scene.policy.spent(), Spent::default());
    }

    #[test]
    fn those_beyond_the_levels_are_kept_for_a_while() {
        let mut scene = Scene::new(1200);
        let many = u32::try_from(LEVELS).expect("few") + 10;
        scene.burst(0.0, many);
        assert_eq!(scene.policy.levels.len(), LEVELS);
        let plan = scene.plan(1.0, many);
        assert_eq!((plan.target, plan.keep_alive), (many, BEYOND));
    }
}
