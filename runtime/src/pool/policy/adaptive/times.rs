//! When an instance is worth having.

use std::time::Duration;

use super::gaps::Chance;

/// What a start ahead costs, in cold starts: it is as much work, but nobody waits for it.
const START: f64 = 0.1;

/// The times at which an instance is worth having: their begins and ends, in seconds of the idle
/// time.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Times(Vec<(f64, f64)>);

/// What is won from a stretch on, in cold starts, with an instance and without one.
#[derive(Clone, Copy, Debug, Default)]
struct Won {
    with: f64,
    without: f64,
}

impl Times {
    /// The best there are, where a second of an instance costs `rent` cold starts: by dynamic
    /// programming from the last stretch to the first. An instance can go for nothing.
    pub(super) fn of(chances: &[Chance], rent: f64) -> Self {
        let mut after = Won::default();
        let mut stretches: Vec<(Won, &Chance)> = Vec::with_capacity(chances.len());
        for stretch in chances.iter().rev() {
            let Chance { begin, end, comes } = *stretch;
            // If a request comes, it comes in the middle.
            let lasts = (end - begin) * (1.0 - comes / 2.0);
            let best = Won {
                with: after.with.max(after.without),
                without: after.without.max(after.with - START),
            };
            let won = Won {
                with: comes - rent * lasts + (1.0 - comes) * best.with,
                without: (1.0 - comes) * best.without,
            };
            stretches.push((won, stretch));
            after = won;
        }
        let mut times: Vec<(f64, f64)> = Vec::new();
        let mut is_there = true;
        for (won, Chance { begin, end, .. }) in stretches.into_iter().rev() {
            let start = if is_there { 0.0 } else { START };
            is_there = won.with - start > won.without;
            match times.last_mut() {
                _ if !is_there => {}
                Some((_, last)) if *last >= *begin => *last = *end,
                _ => times.push((*begin, *end)),
            }
        }
        Self(times)
    }

    /// Whether it is one of them, where a start takes `lead`, and until when that stays so.
    pub(super) fn at(&self, age: Duration, lead: Duration) -> (bool, Option<Duration>) {
        for &(begin, end) in &self.0 {
            let begin = Duration::from_secs_f64(begin).saturating_sub(lead);
            let end = Duration::from_secs_f64(end);
            if age < begin {
                return (false, Some(begin));
            }
            if age < end {
                return (true, Some(end));
            }
        }
        (false, None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chance(begin: f64, end: f64, comes: f64) -> Chance {
        Chance { begin, end, comes }
    }

    #[test]
    fn one_goes_in_between_where_that_is_long_enough_for_another_start() {
        let chances = [
            chance(0.0, 10.0, 0.5),
            chance(10.0, 60.0, 0.0),
            chance(60.0, 61.0, 0.9),
            chance(61.0, 1000.0, 0.01),
        ];
        // A hundredth of a cold start a second: half a cold start to stay, a tenth to start anew.
        let times = Times::of(&chances, 0.01);
        assert_eq!(times, Times(vec![(0.0, 10.0), (60.0, 61.0)]));
        let times = Times::of(&chances, 0.001);
        assert_eq!(times, Times(vec![(0.0, 61.0)]));
        assert_eq!(Times::of(&chances, 2.0), Times::default());
    }

    #[test]
    fn a_start_ahead_begins_as_long_before_as_it_takes() {
        let times = Times(vec![(0.0, 10.0), (60.0, 61.0)]);
        let at = |seconds| times.at(Duration::from_secs(seconds), Duration::from_secs(5));
        let until = |seconds| Some(Duration::from_secs(seconds));
        assert_eq!(at(9), (true, until(10)));
        assert_eq!(at(10), (false, until(55)));
        assert_eq!(at(55), (true, until(61)));
        assert_eq!(at(61), (false, None));
    }
}
