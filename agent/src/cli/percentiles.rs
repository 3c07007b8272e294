//! Percentiles over repeats of a start.

use anstyle::Style;

use super::answer::outcome;
use super::bar::order;
use super::figures::duration;
use super::terminal::{Terminal, columns, cut, fit, right};
use crate::observe::cold_start::{ColdStart, Phase};
use crate::time::Nanos;

/// Word for the row of whole starts.
const TOTAL: &str = "total";

/// How the lengths of one phase, or of the whole start, spread over repeats.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spread {
    /// The phase's label, or `total`.
    pub label: String,
    /// Lengths, shortest first; never empty.
    lengths: Vec<Nanos>,
}

impl Spread {
    fn new(label: String, mut lengths: Vec<Nanos>) -> Option<Self> {
        lengths.sort_unstable();
        (!lengths.is_empty()).then_some(Self { label, lengths })
    }

    /// How many starts had it.
    #[must_use]
    pub fn count(&self) -> usize {
        self.lengths.len()
    }

    /// The `percent`-th percentile by nearest rank: the smallest length that at least that
    /// share of the starts did not exceed. Always one that occurred; 0 gives the shortest.
    #[must_use]
    pub fn percentile(&self, percent: usize) -> Nanos {
        let rank = (self.lengths.len() * percent.min(100)).div_ceil(100);
        self.lengths[rank.saturating_sub(1)]
    }
}

/// The spread of each phase by label, in order of time, and at last of the total. Only starts
/// that became ready count: the length of one that failed says nothing about speed.
#[must_use]
pub fn spreads(starts: &[ColdStart]) -> Vec<Spread> {
    let ready = || starts.iter().filter(|start| start.ready.is_ready());
    let mut labels: Vec<_> = ready()
        .flat_map(|start| start.phases.iter())
        .map(order)
        .collect();
    labels.sort();
    labels.dedup();
    let phases = labels.into_iter().map(|(_, label)| {
        let lengths = ready()
            .flat_map(|start| start.phases.iter())
            .filter(|phase| phase.label() == label)
            .map(Phase::duration)
            .collect();
        (label, lengths)
    });
    phases
        .chain([(
            TOTAL.to_owned(),
            ready().map(|start| start.total_ns).collect(),
        )])
        .filter_map(|(label, lengths)| Spread::new(label, lengths))
        .collect()
}

/// The start whose total is the median by nearest rank among those that became ready, or among
/// all when none did: the one to look at.
#[must_use]
pub fn median(starts: &[ColdStart]) -> Option<&ColdStart> {
    let mut sorted: Vec<&ColdStart> = starts
        .iter()
        .filter(|start| start.ready.is_ready())
        .collect();
    if sorted.is_empty() {
        sorted = starts.iter().collect();
    }
    sorted.sort_by_key(|start| start.total_ns);
    sorted
        .get(sorted.len().div_ceil(2).saturating_sub(1))
        .copied()
}

/// The spreads as a table, with what became of the starts above it.
#[must_use]
pub fn table(starts: &[ColdStart], title: &str, terminal: &Terminal) -> String {
    let spreads = spreads(starts);
    let mut lines = vec![heading(starts, title, terminal), String::new()];
    let label = spreads
        .iter()
        .map(|spread| columns(&spread.label))
        .max()
        .unwrap_or(0);
    // Six columns of figures follow; what is left is the label's.
    let label = label.clamp(5, terminal.width.saturating_sub(5 + 5 * 9).max(5));
    if !spreads.is_empty() {
        let head = ["n", "min", "p50", "p90", "p99", "max"];
        lines.push(terminal.dim(&row("phase", label, head.map(str::to_owned))));
    }
    for spread in &spreads {
        let figure = |percent| terminal.show(&duration(spread.percentile(percent)));
        let figures = [
            spread.count().to_string(),
            figure(0),
            figure(50),
            figure(90),
            figure(99),
            figure(100),
        ];
        let text = row(&cut(&spread.label, label), label, figures);
        let style = if spread.label == TOTAL {
            Style::new().bold()
        } else {
            Style::new()
        };
        lines.push(if style.is_plain() {
            text
        } else {
            terminal.paint(style, &text)
        });
    }
    if !spreads.is_empty() {
        lines.push(String::new());
        for line in terminal.wrap(
            "Percentiles are nearest ranks: each is a length that occurred. Of fewer than 100 \
             starts, p99 is the longest. A phase that some starts lack has a smaller n: theirs \
             is merged with a neighbour.",
            "",
        ) {
            lines.push(terminal.dim(&line));
        }
    }
    lines
        .into_iter()
        .fold(String::new(), |text, line| text + line.trim_end() + "\n")
}

fn heading(starts: &[ColdStart], title: &str, terminal: &Terminal) -> String {
    let mut outcomes: Vec<(String, usize)> = Vec::new();
    for outcome in starts.iter().map(outcome) {
        match outcomes.iter_mut().find(|(same, _)| *same == outcome) {
            Some((_, count)) => *count += 1,
            None => outcomes.push((outcome, 1)),
        }
    }
    outcomes.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let told: Vec<String> = outcomes
        .iter()
        .map(|(outcome, count)| format!("{count} {outcome}"))
        .collect();
    let noun = if starts.len() == 1 { "start" } else { "starts" };
    let counts = cut(
        &format!("{} {noun}: {}", starts.len(), told.join(", ")),
        terminal.width,
    );
    let room = terminal.width.saturating_sub(columns(&counts) + 2);
    let title = cut(&terminal.show(title), room);
    format!("{}  {counts}", terminal.bold(&title))
        .trim_start()
        .to_owned()
}

fn row(label: &str, width: usize, figures: [String; 6]) -> String {
    let [count, lengths @ ..] = figures;
    let mut text = fit(label, width) + &right(&count, 5);
    for length in lengths {
        text.push_str(&right(&length, 9));
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::samples::{self, golden};
    use super::*;
    use crate::observe::cold_start::Ready;

    fn of(lengths: &[u64]) -> Spread {
        Spread::new("x".to_owned(), lengths.iter().copied().map(Nanos).collect())
            .expect("not empty")
    }

    fn scaled(tenths: u64) -> ColdStart {
        let mut start = samples::python();
        let grow = |at: u64| samples::BEGIN + (at - samples::BEGIN) * tenths / 10;
        for phase in &mut start.phases {
            phase.begin.0 = grow(phase.begin.0);
            phase.end.0 = grow(phase.end.0);
        }
        start.total_ns = Nanos(start.total_ns.0 * tenths / 10);
        start
    }

    #[test]
    fn nearest_rank_is_the_textbook_one() {
        let five = of(&[50, 15, 20, 40, 35]);
        let at = [5, 30, 40, 50, 100].map(|percent| five.percentile(percent).0);
        assert_eq!(at, [15, 20, 20, 35, 50]);
        let hundred = of(&(1..=100).collect::<Vec<_>>());
        assert_eq!(
            [1, 50, 90, 99, 100].map(|p| hundred.percentile(p).0),
            [1, 50, 90, 99, 100]
        );
        assert_eq!(of(&[7]).percentile(0), Nanos(7));
    }

    #[test]
    fn a_table_counts_only_what_became_ready() {
        let mut starts: Vec<_> = [9, 12, 10, 11, 10].into_iter().map(scaled).collect();
        // As of a file that was seen for the first time.
        let first = &mut starts[1];
        let tail = first.phases.remove(3);
        first.phases[2].merged = vec![first.phases[2].name, tail.name];
        first.phases[2].end = tail.end;
        let mut late = scaled(90);
        late.ready = Ready::NotReady;
        starts.push(late);
        golden(
            "percentiles.txt",
            &table(&starts, "python3 app.py", &Terminal::PLAIN),
        );
        assert_eq!(
            median(&starts).map(|start| start.total_ns),
            Some(scaled(10).total_ns)
        );
    }

    #[test]
    fn a_table_of_nothing_says_so() {
        let text = table(
            &[samples::failed(), samples::failed()],
            "false",
            &Terminal::PLAIN,
        );
        assert_eq!(text, "false  2 starts: 2 exited with status 1\n\n");
        assert_eq!(median(&[]), None);
    }

    proptest! {
        #[test]
        fn percentiles_occurred_and_never_fall(
            lengths in proptest::collection::vec(any::<u64>(), 1..300),
        ) {
            let spread = of(&lengths);
            let mut last = 0;
            for percent in 0..=100 {
                let at = spread.percentile(percent).0;
                prop_assert!(lengths.contains(&at) && at >= last);
                last = at;
            }
            prop_assert_eq!(spread.percentile(100).0, lengths.into_iter().max().unwrap_or(0));
        }

        #[test]
        fn no_line_is_wider_than_the_terminal(
            starts in proptest::collection::vec(samples::any_start(), 1..4),
            title: String,
            width in 60_usize..=240,
        ) {
            let terminal = Terminal { width, ..Terminal::PLAIN };
            for line in table(&starts, &title, &terminal).lines() {
                prop_assert!(columns(line) <= width, "{line}");
            }
        }
    }
}
