//! What a node spends on idle instances, by what it may.
//!
//! It may spend a little less than it would in either of two simple ways to keep them: for ten
//! minutes each, or by a histogram. That is a yardstick that fits every load: where requests are
//! rare nobody can have few cold starts with little memory, and where they are not nobody needs much.
//! The policies report both, by function; the sums say whether the node is to be more frugal.

use std::time::Duration;

use super::Moment;
use super::policy::Spent;

/// What of the cheaper way may be spent.
const SHARE: f64 = 0.86;
/// How long ago counts less by a factor of e.
const MEMORY: Duration = Duration::from_hours(7 * 24);
/// How often that is made use of.
const FADE: Duration = Duration::from_mins(1);
/// So many seconds of an instance of each function are taken to have been spent as allowed.
const KNOWN: f64 = 100.0;

/// What a node spends on idle instances, by what it may.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Thrift {
    sum: Spent,
    faded: Moment,
}

impl Thrift {
    pub(super) fn add(&mut self, now: Moment, spent: Spent) {
        let passed = now.since(self.faded);
        let left = if passed < FADE {
            1.0
        } else {
            self.faded = now;
            (-passed.as_secs_f64() / MEMORY.as_secs_f64()).exp()
        };
        self.sum.ours = self.sum.ours * left + spent.ours;
        self.sum.fixed = self.sum.fixed * left + spent.fixed;
        self.sum.hybrid = self.sum.hybrid * left + spent.hybrid;
    }

    /// In thousandths, where an instance of each function takes so many bytes together.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a cast of a float saturates"
    )]
    pub(super) fn permille(&self, bytes: u64) -> u32 {
        let known = bytes as f64 * KNOWN;
        let may = self.sum.fixed.min(self.sum.hybrid) * SHARE;
        let permille = ((self.sum.ours + known) / (may + known) * 1000.0) as u32;
        // Nothing at all is said by who knows nothing.
        permille.max(u32::from(bytes > 0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cheaper_of_two_ways_is_the_measure() {
        let mut thrift = Thrift::default();
        assert_eq!(thrift.permille(0), 0);
        assert_eq!(thrift.permille(1 << 30), 1000);
        let spent = Spent {
            ours: 1e15 * SHARE,
            fixed: 1e15,
            hybrid: 2e15,
        };
        thrift.add(Moment::default(), spent);
        assert_eq!(thrift.permille(0), 1000);
        let cheaper = Spent {
            hybrid: -1.5e15,
            ..Spent::default()
        };
        thrift.add(Moment::default(), cheaper);
        assert!((1999..=2000).contains(&thrift.permille(0)));
    }

    #[test]
    fn what_was_long_ago_counts_less() {
        let mut thrift = Thrift::default();
        let much = Spent {
            ours: 8e15,
            fixed: 1e15,
            hybrid: 1e15,
        };
        thrift.add(Moment::default(), much);
        let little = Spent { ours: 0.0, ..much };
        for week in 1..20 {
            thrift.add(Moment(MEMORY * week), little);
        }
        assert_eq!(thrift.permille(0), 0);
    }
}
