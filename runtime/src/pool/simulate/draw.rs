//! Numbers drawn from a seed: the same ones from the same seed, on every machine and in every
//! version. Only the generator's bits are taken from the library, whose distributions may change.

use std::f64::consts::TAU;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore as _, SeedableRng as _};

/// Draws numbers.
pub(super) struct Draw(ChaCha8Rng);

impl Draw {
    pub(super) fn new(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed))
    }

    /// Another one, whose numbers do not depend on how many were drawn here later.
    pub(super) fn fork(&mut self) -> Self {
        Self::new(self.0.next_u64())
    }

    /// Evenly in [0, 1).
    #[expect(clippy::cast_precision_loss, reason = "53 bits are exact")]
    pub(super) fn unit(&mut self) -> f64 {
        (self.0.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Evenly between them.
    pub(super) fn between(&mut self, from: f64, to: f64) -> f64 {
        from + (to - from) * self.unit()
    }

    /// A whole number below `end`, which is not 0.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a small whole number"
    )]
    pub(super) fn below(&mut self, end: usize) -> usize {
        ((self.unit() * end as f64) as usize).min(end.saturating_sub(1))
    }

    pub(super) fn exponential(&mut self, mean: f64) -> f64 {
        -mean * (1.0 - self.unit()).ln()
    }

    /// How many attempts the first success takes, where it takes `mean` on average.
    pub(super) fn geometric(&mut self, mean: f64) -> f64 {
        if mean <= 1.0 {
            return 1.0;
        }
        ((1.0 - self.unit()).ln() / (1.0 - 1.0 / mean).ln())
            .ceil()
            .max(1.0)
    }

    pub(super) fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        radius * (TAU * self.unit()).cos()
    }

    pub(super) fn log_normal(&mut self, median: f64, sigma: f64) -> f64 {
        median * (sigma * self.normal()).exp()
    }

    pub(super) fn shuffle<T>(&mut self, items: &mut [T]) {
        for index in (1..items.len()).rev() {
            items.swap(index, self.below(index + 1));
        }
    }

    /// `count` indices of `shares`, in any order, each as often as its share of the whole says: so a
    /// small draw has the proportions of a large one.
    #[expect(clippy::cast_precision_loss, reason = "a small whole number")]
    pub(super) fn deal(&mut self, shares: &[f64], count: usize) -> Vec<usize> {
        let whole: f64 = shares.iter().sum();
        let mut dealt = vec![0.0_f64; shares.len()];
        let mut cards = Vec::with_capacity(count);
        for nth in 0..count {
            let owed = |index: usize| {
                let share = shares.get(index).copied().unwrap_or(0.0) / whole;
                share * (nth as f64 + 1.0) - dealt.get(index).copied().unwrap_or(0.0)
            };
            let most = (0..shares.len()).max_by(|&a, &b| owed(a).total_cmp(&owed(b)));
            let most = most.unwrap_or(0);
            if let Some(dealt) = dealt.get_mut(most) {
                *dealt += 1.0;
            }
            cards.push(most);
        }
        self.shuffle(&mut cards);
        cards
    }
}
