//! A start as one line, for a terminal or log that starts run by in.

use anstyle::AnsiColor;

use super::answer::name;
use super::terminal::{Terminal, fit, right};
use super::waits;
use crate::observe::cold_start::{ColdStart, Phase, Ready};
use crate::time::Nanos;

/// Columns of who started, of how it ended, and of how long it took.
const WIDTHS: (usize, usize, usize) = (32, 14, 9);

/// One line without its newline: when the start began (`unix_ns`, nanoseconds since 1970, shown
/// in UTC as in the agent's log), who, how it ended, its total and its phases in ms.
#[must_use]
pub fn line(start: &ColdStart, unix_ns: u64, terminal: &Terminal) -> String {
    let ready = match start.ready {
        Ready::Exited | Ready::NotReady => start.ready.as_str().to_owned(),
        ready => format!("ready({})", ready.as_str()),
    };
    let colour = if start.ready.is_ready() {
        AnsiColor::Green
    } else {
        AnsiColor::Red
    };
    let longest = start.phases.iter().map(Phase::duration).max();
    let mut emphasised = false;
    let phases: Vec<String> = start
        .phases
        .iter()
        .map(|phase| {
            let mut text = format!("{} {}", phase.label(), millis(phase.duration()));
            if let Some((lock, length)) = waits::chiefly(phase) {
                text = format!("{text} ({lock} {})", millis(length));
            }
            // Of equally long ones the first.
            if Some(phase.duration()) == longest && !std::mem::replace(&mut emphasised, true) {
                terminal.bold(&text)
            } else {
                text
            }
        })
        .collect();
    let (who, how, total) = WIDTHS;
    format!(
        "{}  {}  {} {} ms  {}",
        terminal.dim(&time_of_day(unix_ns)),
        fit(&terminal.show(&whose(start)), who),
        terminal.colour(colour, &fit(&ready, how)),
        right(&millis(start.total_ns), total),
        phases.join(&terminal.dim(" | ")),
    )
    .trim_end()
    .to_owned()
}

/// The name, and where it runs: the container by its short id, else the unit.
fn whose(start: &ColdStart) -> String {
    let identity = &start.identity;
    let name = name(identity);
    let place = match (&identity.container_id, &identity.unit) {
        (Some(id), _) => id.get(..12).unwrap_or(id),
        (None, Some(unit)) => unit,
        (None, None) => return name,
    };
    format!("{name} [{place}]")
}

/// Milliseconds with one decimal, two below a tenth: `31.0`, `0.3`, `0.04`.
fn millis(length: Nanos) -> String {
    let tenths = length.0.saturating_add(50_000) / 100_000;
    if tenths > 0 {
        return format!("{}.{}", tenths / 10, tenths % 10);
    }
    format!("0.{:02}", length.0.saturating_add(5_000) / 10_000)
}

fn time_of_day(unix_ns: u64) -> String {
    let millis = unix_ns / 1_000_000;
    let seconds = millis / 1_000;
    let (hour, minute) = (seconds / 3_600 % 24, seconds / 60 % 60);
    format!(
        "{hour:02}:{minute:02}:{:02}.{:03}Z",
        seconds % 60,
        millis % 1_000
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::samples::{self, golden};
    use super::*;

    /// 2026-02-03 12:03:04.512 UTC.
    const WHEN: u64 = 1_770_120_184_512_999_999;

    #[test]
    fn lines_stand_under_each_other() {
        let starts = [
            samples::python(),
            samples::container(),
            samples::failed(),
            samples::empty(),
        ];
        let text = starts
            .map(|start| line(&start, WHEN, &Terminal::PLAIN) + "\n")
            .concat();
        golden("lines.txt", &text);
    }

    #[test]
    fn the_longest_phase_stands_out_on_a_terminal_only() {
        let coloured = line(
            &samples::python(),
            WHEN,
            &Terminal {
                colour: true,
                ..Terminal::PLAIN
            },
        );
        assert!(
            coloured.contains("\u{1b}[1mruntime_init 30.8\u{1b}[0m"),
            "{coloured}"
        );
        assert!(!line(&samples::python(), WHEN, &Terminal::PLAIN).contains('\u{1b}'));
    }

    #[test]
    fn milliseconds_keep_what_is_small() {
        let told = [
            0,
            4_999,
            5_000,
            44_000,
            49_999,
            50_000,
            312_000,
            31_040_000,
            1_230_000_000,
        ]
        .map(|nanos| millis(Nanos(nanos)));
        assert_eq!(
            told,
            [
                "0.00", "0.00", "0.01", "0.04", "0.05", "0.1", "0.3", "31.0", "1230.0"
            ]
        );
    }

    proptest! {
        #[test]
        fn whatever_the_name_it_is_one_harmless_line(start in samples::any_start()) {
            let text = line(&start, WHEN, &Terminal::PLAIN);
            prop_assert!(!text.chars().any(char::is_control), "{text:?}");
        }
    }
}
