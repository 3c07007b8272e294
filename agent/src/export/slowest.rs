//! The slowest starts of the last quarter of an hour, by rank.

use std::time::Duration;

use crate::time::{Boottime, Nanos};

/// Ranks that are told.
pub(super) const RANKS: usize = 10;

/// How far back a start counts.
const WINDOW: Duration = Duration::from_mins(15);

/// Bound of the starts that are kept, for the worst order in which they can come.
const MAX_KEPT: usize = 1000;

/// One start that is, or may still become, one of the slowest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Slow {
    /// When it ended.
    pub end: Boottime,
    /// How long it took.
    pub total: Nanos,
    /// Its trace.
    pub trace_id: u128,
    /// Its function, bounded.
    pub name: String,
    /// Later starts that took longer.
    beaten: usize,
}

/// Keeps every start that can be among the slowest now or when others grow old: those with
/// fewer than [`RANKS`] later ones that took longer.
#[derive(Debug, Default)]
pub(super) struct Slowest {
    kept: Vec<Slow>,
}

impl Slowest {
    /// Takes note of a start.
    pub(super) fn add(&mut self, end: Boottime, total: Nanos, trace_id: u128, name: String) {
        for slow in &mut self.kept {
            slow.beaten += usize::from(slow.total <= total);
        }
        self.kept.retain(|slow| slow.beaten < RANKS);
        if self.kept.len() >= MAX_KEPT {
            let fastest = self
                .kept
                .iter()
                .enumerate()
                .min_by_key(|(_, slow)| slow.total);
            if let Some((index, _)) = fastest {
                self.kept.swap_remove(index);
            }
        }
        self.kept.push(Slow {
            end,
            total,
            trace_id,
            name,
            beaten: 0,
        });
    }

    /// The slowest at `now`, slowest first.
    pub(super) fn top(&mut self, now: Boottime) -> Vec<Slow> {
        self.kept
            .retain(|slow| now.since(slow.end).as_duration() <= WINDOW);
        let mut top = self.kept.clone();
        top.sort_by_key(|slow| std::cmp::Reverse(slow.total));
        top.truncate(RANKS);
        top
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn top(slowest: &mut Slowest, now_s: u64) -> Vec<u64> {
        slowest
            .top(Boottime(now_s * 1_000_000_000))
            .iter()
            .map(|slow| slow.total.0)
            .collect()
    }

    #[test]
    fn the_ten_slowest_of_the_window_in_order_whatever_came_when() {
        // One start a second; their lengths run through a permutation of 0..997.
        let length = |second: u64| second * 331 % 997;
        let mut slowest = Slowest::default();
        for second in 0..3000 {
            slowest.add(
                Boottime(second * 1_000_000_000),
                Nanos(length(second)),
                1,
                "f".into(),
            );
            if second % 500 == 499 {
                let mut expected = (second.saturating_sub(900)..=second)
                    .map(length)
                    .collect::<Vec<_>>();
                expected.sort_unstable_by(|a, b| b.cmp(a));
                expected.truncate(RANKS);
                assert_eq!(top(&mut slowest, second), expected);
            }
        }
        assert!(slowest.kept.len() < 200, "{} kept", slowest.kept.len());
    }

    #[test]
    fn old_ones_vanish() {
        let mut slowest = Slowest::default();
        slowest.add(Boottime(0), Nanos(5), 1, "f".into());
        assert_eq!(top(&mut slowest, 900), [5]);
        assert!(top(&mut slowest, 901).is_empty());
    }

    #[test]
    fn the_worst_order_is_bounded() {
        let mut slowest = Slowest::default();
        for n in 0..5000_u64 {
            slowest.add(Boottime(n), Nanos(10_000 - n), 1, "f".into());
        }
        assert_eq!(slowest.kept.len(), MAX_KEPT);
        assert_eq!(top(&mut slowest, 0)[0], 10_000);
    }
}
