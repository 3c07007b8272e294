//! When the requests for an app come.

use super::super::draw::Draw;
use super::{App, Synthetic};

/// How the requests for an app follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pattern {
    /// As a clock has it.
    Periodic,
    /// More regularly than chance: the gaps vary by less than their mean.
    Regular,
    /// Less regularly: by up to twice their mean.
    Irregular,
    /// Many at once, then none for long.
    Bursty,
}

/// The times between the requests of one app.
pub(super) struct Gaps {
    pattern: Pattern,
    mean: f64,
    /// Of a sum of exponential times: how many; of a choice of two: how often the shorter.
    shape: f64,
    burst: f64,
    within: f64,
    left: f64,
    /// Whether the last one began a burst.
    pub(super) is_new: bool,
}

impl Gaps {
    pub(super) fn new(synthetic: &Synthetic, app: &App, draw: &mut Draw) -> Self {
        let mean = 1.0 / app.rate;
        let expected = app.rate * synthetic.length.as_secs_f64();
        let mut gaps = Self {
            pattern: app.pattern,
            mean,
            shape: 1.0,
            burst: 1.0,
            within: synthetic.within_burst.as_secs_f64().min(mean / 4.0),
            left: 0.0,
            is_new: true,
        };
        match app.pattern {
            Pattern::Periodic => {}
            Pattern::Regular => gaps.shape = draw.between(2.0, 9.0).floor(),
            Pattern::Irregular => {
                let variation = draw.between(1.3, 1.8).powi(2);
                gaps.shape = f64::midpoint(1.0, ((variation - 1.0) / (variation + 1.0)).sqrt());
            }
            // Where there are few requests, there are few in a burst, or there was but one.
            Pattern::Bursty => gaps.burst = (expected / 5.0).clamp(4.0, synthetic.burst.max(4.0)),
        }
        gaps
    }

    pub(super) fn first(&mut self, draw: &mut Draw) -> f64 {
        match self.pattern {
            Pattern::Periodic => draw.between(0.0, self.mean),
            Pattern::Bursty => {
                self.left = draw.geometric(self.burst) - 1.0;
                draw.unit() * self.mean * self.burst
            }
            _ => draw.unit() * self.mean,
        }
    }

    pub(super) fn next(&mut self, draw: &mut Draw) -> f64 {
        match self.pattern {
            Pattern::Periodic => self.mean,
            Pattern::Regular => {
                let mut sum = 0.0;
                let mut left = self.shape;
                while left > 0.0 {
                    sum += draw.exponential(self.mean / self.shape);
                    left -= 1.0;
                }
                sum
            }
            Pattern::Irregular => {
                let share = if draw.unit() < self.shape {
                    self.shape
                } else {
                    1.0 - self.shape
                };
                draw.exponential(self.mean / (2.0 * share))
            }
            Pattern::Bursty => {
                self.is_new = self.left < 1.0;
                if self.is_new {
                    self.left = draw.geometric(self.burst) - 1.0;
                    let inside = self.within * (self.burst - 1.0);
                    draw.exponential(self.mean * self.burst - inside)
                } else {
                    self.left -= 1.0;
                    draw.exponential(self.within)
                }
            }
        }
    }
}
