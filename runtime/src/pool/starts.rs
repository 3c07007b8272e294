//! How long starts take.

use std::collections::VecDeque;
use std::time::Duration;

/// Starts that are remembered.
const LAST: usize = 32;
/// What a start is taken to last as long as none was measured.
const UNMEASURED: Duration = Duration::from_millis(250);

/// How long the last few starts took.
#[derive(Clone, Debug, Default)]
pub(super) struct Starts {
    order: VecDeque<Duration>,
    /// The same, the shortest first: it is asked for more often than measured.
    sorted: Vec<Duration>,
}

impl Starts {
    /// One took so long.
    pub(super) fn measured(&mut self, start: Duration) {
        if self.order.len() >= LAST
            && let Some(oldest) = self.order.pop_front()
            && let Ok(index) = self.sorted.binary_search(&oldest)
        {
            self.sorted.remove(index);
        }
        self.order.push_back(start);
        let index = self.sorted.partition_point(|other| *other < start);
        self.sorted.insert(index, start);
    }

    /// What one of two is shorter than.
    pub(super) fn median(&self) -> Duration {
        self.percentile(50)
    }

    /// What 19 of 20 are not longer than.
    pub(super) fn p95(&self) -> Duration {
        self.percentile(95)
    }

    fn percentile(&self, percent: usize) -> Duration {
        let rank = (self.sorted.len() * percent).div_ceil(100);
        let index = rank.saturating_sub(1);
        self.sorted.get(index).copied().unwrap_or(UNMEASURED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_few_tell_and_before_them_a_guess() {
        let mut starts = Starts::default();
        assert_eq!(starts.p95(), UNMEASURED);
        for seconds in (1..=100).rev() {
            starts.measured(Duration::from_secs(seconds));
        }
        // 32 to 1 were the last.
        assert_eq!(starts.median(), Duration::from_secs(16));
        assert_eq!(starts.p95(), Duration::from_secs(31));
        for _ in 0..LAST {
            starts.measured(Duration::from_secs(7));
        }
        assert_eq!([starts.median(), starts.p95()], [Duration::from_secs(7); 2]);
    }
}
