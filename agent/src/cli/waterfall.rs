//! A start as a waterfall in the terminal: a row a phase on a common time axis, and the
//! answer in words.

use super::answer::{answer, notes, outcome};
use super::bar::{Axis, segments, split, sums, union};
use super::figures::{duration, percent};
use super::terminal::{Terminal, columns, cut, fit, right};
use crate::observe::cold_start::{ColdStart, PartSpan, Phase};
use crate::time::{Boottime, Nanos};

/// Columns of one length: `1.11 ms`, right-aligned.
const FIGURE: usize = 7;
/// Columns of a share: `64`, `0.6`, `100`.
const SHARE: usize = 4;
/// From here on there is room for the column of offsets.
const ROOMY: usize = 72;

/// Draws one start. `title` is what was started; `why` tells why boundaries have no probe, and
/// is shown where phases are merged. Every line ends with a newline and takes at most the
/// terminal's width.
#[must_use]
pub fn waterfall(start: &ColdStart, title: &str, why: &[String], terminal: &Terminal) -> String {
    Waterfall::new(start, terminal).draw(title, why)
}

struct Waterfall<'a> {
    start: &'a ColdStart,
    terminal: &'a Terminal,
    label: usize,
    axis: Axis,
}

impl<'a> Waterfall<'a> {
    fn new(start: &'a ColdStart, terminal: &'a Terminal) -> Self {
        let most = if terminal.width < ROOMY {
            16
        } else {
            terminal.width / 4
        };
        let label = start
            .phases
            .iter()
            .flat_map(|phase| {
                let parts = grouped(&phase.parts)
                    .into_iter()
                    .map(|(name, parts)| columns(&part_label(name, parts.len(), terminal)));
                std::iter::once(columns(&phase.label())).chain(parts)
            })
            .chain([columns("phase"), columns("total")])
            .max()
            .unwrap_or(0)
            .min(most);
        let offset = if terminal.width < ROOMY {
            0
        } else {
            2 + FIGURE
        };
        let left = label + offset + 2 + FIGURE + 2 + SHARE + 2;
        let cells = terminal.width.saturating_sub(left).max(1);
        Self {
            start,
            terminal,
            label,
            axis: Axis {
                begin: start.begin,
                total: start.total_ns,
                cells,
            },
        }
    }

    fn draw(&self, title: &str, why: &[String]) -> String {
        let mut lines = vec![self.heading(title), String::new(), self.header()];
        for phase in &self.start.phases {
            lines.push(self.phase_row(phase));
            for (name, parts) in grouped(&phase.parts) {
                lines.push(self.part_row(name, &parts));
            }
        }
        lines.push(self.row("total", None, Some(self.start.total_ns), ""));
        let legend = self.legend();
        if !legend.is_empty() {
            lines.push(String::new());
            lines.extend(legend);
        }
        for paragraph in answer(self.start) {
            lines.push(String::new());
            lines.extend(self.terminal.wrap(&paragraph, ""));
        }
        let mut notes = notes(self.start);
        if self
            .start
            .phases
            .iter()
            .any(|phase| !phase.merged.is_empty())
        {
            notes.extend_from_slice(why);
        }
        if !notes.is_empty() {
            lines.push(String::new());
        }
        for note in notes {
            let mark = if self.terminal.unicode { "· " } else { "* " };
            lines.extend(
                self.terminal
                    .wrap(&note, mark)
                    .into_iter()
                    .map(|line| self.terminal.dim(&line)),
            );
        }
        let mut text = String::new();
        for line in lines {
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }

    fn heading(&self, title: &str) -> String {
        let outcome = format!(
            "{} after {}",
            outcome(self.start),
            duration(self.start.total_ns)
        );
        let outcome = self.terminal.show(&outcome);
        let room = self.terminal.width.saturating_sub(columns(&outcome) + 2);
        let title = cut(&self.terminal.show(title), room);
        format!("{}  {outcome}", self.terminal.bold(&title))
    }

    fn header(&self) -> String {
        let cells = self.axis.cells;
        let total = self.terminal.show(&duration(self.start.total_ns));
        let half = self
            .terminal
            .show(&duration(Nanos(self.start.total_ns.0 / 2)));
        let mut scale = "0".to_owned();
        if cells >= 3 * (FIGURE + 2) {
            scale = fit(&scale, (cells / 2).saturating_sub(columns(&half) / 2)) + &half;
        }
        if cells > columns(&total) + 1 {
            scale = fit(&scale, cells - columns(&total)) + &total;
        }
        let mut text = fit("phase", self.label);
        if self.terminal.width >= ROOMY {
            text.push_str(&right("start", 2 + FIGURE));
        }
        text.push_str(&right("length", 2 + FIGURE));
        text.push_str(&right("%", 2 + SHARE));
        self.terminal.dim(&format!("{text}  {scale}"))
    }

    fn phase_row(&self, phase: &Phase) -> String {
        let (span, short) = self.axis.span(phase.begin, phase.end);
        let mut bar = " ".repeat(span.start);
        for (cause, cells) in segments(&split(phase), span.len()) {
            let glyph = match (short, self.terminal.unicode) {
                (false, unicode) => cause.glyph(unicode),
                (true, true) => '▏',
                (true, false) => '|',
            };
            let text: String = std::iter::repeat_n(glyph, cells).collect();
            bar.push_str(&self.terminal.colour(cause.colour(), &text));
        }
        self.row(
            &phase.label(),
            Some(phase.begin),
            Some(phase.duration()),
            &bar,
        )
    }

    fn part_row(&self, name: &str, parts: &[&PartSpan]) -> String {
        let mut taken = vec![false; self.axis.cells];
        for part in parts {
            let (span, _) = self.axis.span(part.begin, part.end);
            taken[span].fill(true);
        }
        let glyph = if self.terminal.unicode { '▂' } else { '~' };
        let bar: String = taken
            .iter()
            .map(|taken| if *taken { glyph } else { ' ' })
            .collect();
        let begin = parts.iter().map(|part| part.begin).min();
        let length = union(parts.iter().map(|part| (part.begin, part.end)));
        let label = part_label(name, parts.len(), self.terminal);
        self.row(
            &label,
            begin,
            Some(length),
            &self.terminal.dim(bar.trim_end()),
        )
    }

    fn row(&self, label: &str, at: Option<Boottime>, length: Option<Nanos>, bar: &str) -> String {
        let figure = |time: Option<Nanos>| {
            let text = time
                .map(|time| self.terminal.show(&duration(time)))
                .unwrap_or_default();
            right(&text, 2 + FIGURE)
        };
        let mut text = fit(
            &self.terminal.show(&abridged(label, self.label)),
            self.label,
        );
        if self.terminal.width >= ROOMY {
            text.push_str(&figure(at.map(|at| at.since(self.start.begin))));
        }
        text.push_str(&figure(length));
        let share = length.and_then(|length| percent(length, self.start.total_ns));
        text.push_str(&right(&share.unwrap_or_default(), 2 + SHARE));
        text.push_str("  ");
        text + bar
    }

    /// What the fillings mean, with the sum of each over the whole start.
    fn legend(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let (mut line, mut used) = (String::new(), 0);
        for (cause, sum) in sums(self.start) {
            let glyph = cause.glyph(self.terminal.unicode).to_string();
            let text = self
                .terminal
                .show(&format!(" {} {}", cause.word(), duration(sum)));
            let width = 1 + columns(&text);
            if used > 0 && used + 3 + width > self.terminal.width {
                lines.push(std::mem::take(&mut line));
                used = 0;
            }
            if used > 0 {
                line.push_str("   ");
                used += 3;
            }
            line.push_str(&self.terminal.colour(cause.colour(), &glyph));
            line.push_str(&text);
            used += width;
        }
        if used == 0 {
            return lines;
        }
        lines.push(line);
        let meaning = "A bar shows shares of its phase, not moments in it.";
        lines.extend(
            self.terminal
                .wrap(meaning, "")
                .into_iter()
                .map(|line| self.terminal.dim(&line)),
        );
        lines
    }
}

/// Parts by name, locks by their own, in the order of their first begin.
pub(super) fn grouped(parts: &[PartSpan]) -> Vec<(&'static str, Vec<&PartSpan>)> {
    let mut groups: Vec<(&'static str, Vec<&PartSpan>)> = Vec::new();
    let mut ordered: Vec<&PartSpan> = parts.iter().collect();
    ordered.sort_by_key(|part| part.begin);
    for part in ordered {
        match groups.iter_mut().find(|(name, _)| *name == part.label()) {
            Some((_, group)) => group.push(part),
            None => groups.push((part.label(), vec![part])),
        }
    }
    groups
}

fn part_label(name: &str, count: usize, terminal: &Terminal) -> String {
    let times = if terminal.unicode { '×' } else { 'x' };
    if count == 1 {
        format!("  {name}")
    } else {
        format!("  {name} {times}{count}")
    }
}

/// A merged label that is too long keeps its two ends: `create+…+link`.
pub(super) fn abridged(label: &str, width: usize) -> String {
    if columns(label) > width
        && let (Some((first, rest)), Some((_, last))) =
            (label.split_once('+'), label.rsplit_once('+'))
        && rest.contains('+')
    {
        return cut(&format!("{first}+…+{last}"), width);
    }
    cut(label, width)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::answer;
    use super::super::bar::Cause;
    use super::super::samples::{self, golden};
    use super::*;

    fn drawn(start: &ColdStart, terminal: &Terminal) -> String {
        waterfall(start, &answer::name(&start.identity), &[], terminal)
    }

    #[test]
    fn a_measured_start_is_drawn_and_explained() {
        let wide = Terminal {
            width: 120,
            ..Terminal::PLAIN
        };
        golden("waterfall-120.txt", &drawn(&samples::python(), &wide));
    }

    #[test]
    fn what_is_not_known_is_said() {
        golden(
            "waterfall-unmeasured.txt",
            &drawn(&samples::container(), &Terminal::PLAIN),
        );
        golden(
            "waterfall-failed.txt",
            &drawn(&samples::failed(), &Terminal::PLAIN),
        );
        golden(
            "waterfall-empty.txt",
            &drawn(&samples::empty(), &Terminal::PLAIN),
        );
    }

    #[test]
    fn plain_ascii_in_eighty_columns_says_the_same() {
        let old = Terminal {
            width: 80,
            unicode: false,
            colour: false,
        };
        let text = [samples::python(), samples::container(), samples::failed()]
            .map(|start| drawn(&start, &old))
            .join("\n");
        golden("waterfall-80-ascii.txt", &text);
    }

    #[test]
    fn colours_change_nothing_but_colour() {
        let coloured = Terminal {
            colour: true,
            ..Terminal::PLAIN
        };
        let text = drawn(&samples::python(), &coloured);
        let green = format!("{}", Cause::Running.colour().on_default());
        assert!(text.contains(&format!("{green}█")), "{text}");
        let mut plain = String::new();
        for (index, piece) in text.split('\x1b').enumerate() {
            plain.push_str(if index == 0 {
                piece
            } else {
                &piece[piece.find('m').expect("an end") + 1..]
            });
        }
        let trimmed: String = plain
            .lines()
            .flat_map(|line| [line.trim_end(), "\n"])
            .collect();
        assert_eq!(trimmed, drawn(&samples::python(), &Terminal::PLAIN));
    }

    proptest! {
        #[test]
        fn no_line_is_wider_than_the_terminal(
            start in samples::any_start(),
            width in 60_usize..=240,
            unicode: bool,
        ) {
            let terminal = Terminal { width, unicode, ..Terminal::PLAIN };
            let text = drawn(&start, &terminal);
            for line in text.lines() {
                prop_assert!(columns(line) <= width, "{} > {width}: {line}", columns(line));
            }
            prop_assert!(unicode || text.is_ascii(), "{text}");
        }
    }
}
