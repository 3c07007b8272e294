//! Bars: what a phase's time went into, and which cells of a common axis it takes.

use std::collections::BTreeMap;
use std::ops::Range;

use anstyle::AnsiColor;

use crate::observe::cold_start::{ColdStart, Phase, PhaseName};
use crate::time::{Boottime, Nanos};

/// What time went into.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cause {
    /// A thread ran.
    Running,
    /// None ran, one was runnable.
    Queued,
    /// None was runnable, one waited for I/O.
    Io,
    /// All waited for something else.
    Blocked,
    /// Nobody measured it.
    Unmeasured,
}

impl Cause {
    /// Every cause, in the order in which bars show them.
    pub const ALL: [Self; 5] = [
        Self::Running,
        Self::Queued,
        Self::Io,
        Self::Blocked,
        Self::Unmeasured,
    ];

    /// The word for it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Queued => "queued",
            Self::Io => "io",
            Self::Blocked => "blocked",
            Self::Unmeasured => "not measured",
        }
    }

    /// The character that fills its cells.
    #[must_use]
    pub const fn glyph(self, unicode: bool) -> char {
        match (self, unicode) {
            (Self::Running, true) => '█',
            (Self::Queued, true) => '▒',
            (Self::Io, true) => '▓',
            (Self::Blocked, true) => '░',
            (Self::Unmeasured, true) => '━',
            (Self::Running, false) => '#',
            (Self::Queued, false) => ':',
            (Self::Io, false) => '=',
            (Self::Blocked, false) => '.',
            (Self::Unmeasured, false) => '-',
        }
    }

    /// Its colour on a terminal.
    #[must_use]
    pub const fn colour(self) -> AnsiColor {
        match self {
            Self::Running => AnsiColor::Green,
            Self::Queued => AnsiColor::Yellow,
            Self::Io => AnsiColor::Blue,
            Self::Blocked => AnsiColor::Magenta,
            Self::Unmeasured => AnsiColor::BrightBlack,
        }
    }
}

/// The causes that took any of the phase's time, in the order of [`Cause::ALL`]. They sum to its
/// length: what no figure covers is [`Cause::Unmeasured`].
#[must_use]
pub fn split(phase: &Phase) -> Vec<(Cause, Nanos)> {
    let mut left = phase.duration().0;
    let measured = [
        phase.running_ns,
        phase.queued_ns,
        phase.io_ns,
        phase.blocked_ns,
    ];
    let mut causes = Vec::with_capacity(Cause::ALL.len());
    for (cause, time) in Cause::ALL.into_iter().zip(measured) {
        let time = time.map_or(0, |time| time.0.min(left));
        left -= time;
        causes.push((cause, Nanos(time)));
    }
    causes.push((Cause::Unmeasured, Nanos(left)));
    causes.retain(|(_, time)| time.0 > 0);
    causes
}

/// What the whole start's time went into, in the order of [`Cause::ALL`].
#[must_use]
pub fn sums(start: &ColdStart) -> BTreeMap<Cause, Nanos> {
    let mut sums = BTreeMap::new();
    for (cause, time) in start.phases.iter().flat_map(split) {
        let sum: &mut Nanos = sums.entry(cause).or_default();
        sum.0 = sum.0.saturating_add(time.0);
    }
    sums
}

/// Where a phase stands among phases of several starts, and its label.
#[must_use]
pub fn order(phase: &Phase) -> (Vec<PhaseName>, String) {
    let inside = if phase.merged.is_empty() {
        vec![phase.name]
    } else {
        phase.merged.clone()
    };
    (inside, phase.label())
}

/// A time axis of so many cells.
#[derive(Clone, Copy, Debug)]
pub struct Axis {
    /// Time of the left edge.
    pub begin: Boottime,
    /// Length of the whole axis.
    pub total: Nanos,
    /// Cells.
    pub cells: usize,
}

impl Axis {
    /// The edge between cells that is nearest to `at`, from 0 to [`Self::cells`].
    #[must_use]
    pub fn edge(&self, at: Boottime) -> usize {
        let offset = u128::from(at.since(self.begin).0.min(self.total.0));
        let total = u128::from(self.total.0);
        let edge = (offset * self.cells as u128 + total / 2)
            .checked_div(total)
            .unwrap_or(0);
        usize::try_from(edge).unwrap_or(self.cells).min(self.cells)
    }

    /// The cells of an interval: at least one, and whether that one is more than it is due.
    #[must_use]
    pub fn span(&self, begin: Boottime, end: Boottime) -> (Range<usize>, bool) {
        let (from, to) = (self.edge(begin), self.edge(end));
        if from < to {
            return (from..to, false);
        }
        let from = from.min(self.cells.saturating_sub(1));
        (from..(from + 1).min(self.cells), true)
    }
}

/// Hands `cells` out in proportion to the times, the largest remainders first, so that they
/// add up.
#[must_use]
pub fn segments(split: &[(Cause, Nanos)], cells: usize) -> Vec<(Cause, usize)> {
    let total: u128 = split.iter().map(|(_, time)| u128::from(time.0)).sum();
    if total == 0 {
        return vec![(Cause::Unmeasured, cells)];
    }
    let mut shares: Vec<(Cause, usize, u128)> = split
        .iter()
        .map(|(cause, time)| {
            let scaled = u128::from(time.0) * cells as u128;
            (
                *cause,
                usize::try_from(scaled / total).unwrap_or(cells),
                scaled % total,
            )
        })
        .collect();
    let given: usize = shares.iter().map(|(_, share, _)| share).sum();
    let mut by_remainder: Vec<usize> = (0..shares.len()).collect();
    by_remainder.sort_by_key(|index| std::cmp::Reverse(shares[*index].2));
    for index in by_remainder.into_iter().take(cells.saturating_sub(given)) {
        shares[index].1 += 1;
    }
    shares
        .into_iter()
        .map(|(cause, share, _)| (cause, share))
        .filter(|(_, share)| *share > 0)
        .collect()
}

/// Length of the union of intervals, which may overlap.
#[must_use]
pub fn union(intervals: impl IntoIterator<Item = (Boottime, Boottime)>) -> Nanos {
    let mut sorted: Vec<_> = intervals.into_iter().collect();
    sorted.sort_unstable();
    let mut length = 0_u64;
    let mut reached = Boottime(0);
    for (begin, end) in sorted {
        length = length.saturating_add(end.since(begin.max(reached)).0);
        reached = reached.max(end);
    }
    Nanos(length)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn segments_add_up(
            times in proptest::collection::vec(0_u64..u64::MAX, 0..5),
            cells in 0_usize..300,
        ) {
            let split: Vec<_> = Cause::ALL.into_iter().zip(times.into_iter().map(Nanos)).collect();
            let cut = segments(&split, cells);
            prop_assert_eq!(cut.iter().map(|(_, share)| share).sum::<usize>(), cells);
        }

        #[test]
        fn a_larger_time_never_gets_fewer_cells(a in 1_u64..u64::MAX, b in 1_u64..u64::MAX, cells in 1_usize..300) {
            let cut = segments(&[(Cause::Running, Nanos(a)), (Cause::Io, Nanos(b))], cells);
            let of = |cause| cut.iter().find(|(found, _)| *found == cause).map_or(0, |(_, cells)| *cells);
            let (larger, smaller) = if a >= b { (Cause::Running, Cause::Io) } else { (Cause::Io, Cause::Running) };
            prop_assert!(of(larger) >= of(smaller));
        }

        #[test]
        fn spans_stay_on_the_axis(
            begin in 0_u64..u64::MAX / 2,
            total in 0_u64..u64::MAX / 2,
            from: u64,
            to: u64,
            cells in 1_usize..300,
        ) {
            let axis = Axis { begin: Boottime(begin), total: Nanos(total), cells };
            let (span, _) = axis.span(Boottime(from), Boottime(to));
            prop_assert!(!span.is_empty() && span.end <= cells, "{span:?}");
        }

        #[test]
        fn neighbours_share_an_edge(total in 1_u64..1 << 50, cut in 0_u64..1 << 50, cells in 1_usize..300) {
            let axis = Axis { begin: Boottime(7), total: Nanos(total), cells };
            let middle = axis.edge(Boottime(7 + cut.min(total)));
            prop_assert_eq!(axis.edge(Boottime(7)), 0);
            prop_assert_eq!(axis.edge(Boottime(7 + total)), cells);
            prop_assert!(middle <= cells);
        }
    }

    #[test]
    fn overlaps_count_once() {
        let intervals = [(1, 5), (3, 4), (4, 8), (20, 22), (22, 20)];
        let times = intervals.map(|(begin, end)| (Boottime(begin), Boottime(end)));
        assert_eq!(union(times), Nanos(9));
    }
}
