//! When an instance is worth having.

use std::time::Duration;

use super::gaps::Chance;

/// A start ahead costs as much as an instance that waits for so many seconds, whatever a cold start
/// is worth: who comes back sooner stays, however frugal the node is,
const START: f64 = 60.0;
/// but no more than this of a cold start: it is as much work, and nobody waits for it.
const MOST: f64 = 0.5;

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
        let start = (START * rent).min(MOST);
        let mut after = Won::default();
        let mut stretches: Vec<(Won, &Chance)> = Vec::with_capacity(chances.len());
        for stretch in chances.iter().rev() {
            let Chance { begin, end, comes } = *stretch;
            // If a request comes, it comes in the middle.
            let lasts = (end - begin) * (1.0 - comes / 2.0);
            let best = Won {
                with: after.with.max(after.without),
                without: after.without.max(after.with - start),
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
            let anew = if is_there { 0.0 } else { start };
            is_there = won.with - anew > won.without;
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
        let chances = |back: f64| {
            [
                chance(0.0, 10.0, 0.5),
                chance(10.0, back, 0.0),
                chance(back, back + 1.0, 0.9),
                chance(back + 1.0, 1000.0, 0.01),
            ]
        };
        for rent in [0.01, 0.001] {
            let stays = Times::of(&chances(50.0), rent);
            assert_eq!(stays, Times(vec![(0.0, 51.0)]));
            let goes = Times::of(&chances(100.0), rent);
            assert_eq!(goes, Times(vec![(0.0, 10.0), (100.0, 101.0)]));
        }
        assert_eq!(Times::of(&chances(50.0), 2.0), Times::default());
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
