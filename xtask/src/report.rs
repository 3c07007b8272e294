//! The table of tiers at the end of a run of the tests.

use std::fmt::Write as _;
use std::time::Duration;

use crate::libtest::Counts;

/// How a tier ended.
#[derive(Debug)]
pub(crate) enum End {
    Ran(Counts),
    /// It lacks this, and the caller has said that it may.
    Allowed(String),
    /// It lacks this: a failure, else a machine without it would look well.
    CannotRun(String),
}

/// One tier of the table.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) end: End,
    pub(crate) took: Duration,
}

impl Line {
    /// Whether this tier leaves the run a success.
    pub(crate) fn is_well(&self) -> bool {
        match &self.end {
            // A tier without a test is one that somebody renamed.
            End::Ran(counts) => counts.failed == 0 && counts.passed > 0,
            End::Allowed(_) => true,
            End::CannotRun(_) => false,
        }
    }

    /// Passed, failed, skipped and why. A tier that did not run counts as one.
    fn row(&self) -> ([u64; 3], String) {
        let one_line = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        match &self.end {
            End::Ran(counts) => {
                if counts.passed + counts.failed == 0 {
                    return ([0, 1, counts.skipped], "no test ran".to_owned());
                }
                let why = one_line(&counts.notes.join(", "));
                ([counts.passed, counts.failed, counts.skipped], why)
            }
            End::Allowed(why) => (
                [0, 0, 1],
                format!("allowed to be missing: {}", one_line(why)),
            ),
            End::CannotRun(why) => ([0, 1, 0], format!("cannot run: {}", one_line(why))),
        }
    }
}

/// The table, and alone on the last line the totals.
pub(crate) fn table(lines: &[Line]) -> String {
    let mut text = format!(
        "\n{:<12} {:>7} {:>7} {:>8} {:>8}  why\n",
        "tier", "passed", "failed", "skipped", "seconds"
    );
    let mut totals = [0; 3];
    for line in lines {
        let ([passed, failed, skipped], why) = line.row();
        for (total, number) in totals.iter_mut().zip([passed, failed, skipped]) {
            *total += number;
        }
        let seconds = line.took.as_secs_f64();
        let row = format!(
            "{:<12} {passed:>7} {failed:>7} {skipped:>8} {seconds:>8.1}  {why}",
            line.name
        );
        let _ = writeln!(text, "{}", row.trim_end());
    }
    let [passed, failed, skipped] = totals;
    let _ = writeln!(
        text,
        "\n{passed} passed, {failed} failed, {skipped} skipped"
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(end: End) -> Line {
        Line {
            name: "unit".to_owned(),
            end,
            took: Duration::from_millis(1500),
        }
    }

    #[test]
    fn the_last_line_has_the_totals_and_the_table_the_reasons() {
        let ran = Counts {
            passed: 7,
            failed: 1,
            skipped: 2,
            notes: vec!["a::b".to_owned()],
            ..Counts::default()
        };
        let lines = [
            line(End::Ran(ran)),
            line(End::Allowed("no\n  QEMU".to_owned())),
            line(End::CannotRun("it takes root".to_owned())),
        ];
        let text = table(&lines);
        assert_eq!(text.lines().last(), Some("7 passed, 2 failed, 3 skipped"));
        for why in [
            "1.5  a::b",
            "allowed to be missing: no QEMU",
            "cannot run: it takes root",
        ] {
            assert!(text.contains(why), "{why} is not in\n{text}");
        }
    }

    #[test]
    fn only_a_tier_that_may_be_missing_is_well_without_having_run() {
        assert!(line(End::Ran(Counts::check("x", true))).is_well());
        assert!(!line(End::Ran(Counts::check("x", false))).is_well());
        assert!(!line(End::Ran(Counts::default())).is_well());
        assert!(line(End::Allowed(String::new())).is_well());
        assert!(!line(End::CannotRun(String::new())).is_well());
    }
}
