//! What the test programs of Rust say, counted.

use std::ops::AddAssign;

/// How many tests ended how, and why some did not run.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) skipped: u64,
    /// Names of what failed and, of what was skipped, the reasons.
    pub(crate) notes: Vec<String>,
    /// Tests that failed, by name.
    pub(crate) failures: Vec<String>,
    /// Tests that passed, by name.
    pub(crate) passes: Vec<String>,
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
        for note in other.notes {
            self.note(note);
        }
        self.failures.extend(other.failures);
        self.passes.extend(other.passes);
    }
}

impl Counts {
    /// One check that is no test of Rust's: its name and how it ended.
    pub(crate) fn check(name: &str, has_passed: bool) -> Self {
        let mut counts = Self::default();
        if has_passed {
            counts.passed = 1;
        } else {
            counts.failed = 1;
            counts.note(name);
        }
        counts
    }

    /// Takes into account that each of `failures` was run once more, by itself, and how that
    /// ended. What passes then is passed, and stays named.
    pub(crate) fn second_run(&mut self, again: &Self) {
        let healed: Vec<_> = self
            .failures
            .iter()
            .filter(|name| again.passes.contains(name))
            .cloned()
            .collect();
        for name in healed {
            self.failed = self.failed.saturating_sub(1);
            self.passed += 1;
            self.notes.retain(|note| *note != name);
            self.note(format!("{name} failed beside others and passed alone"));
            self.failures.retain(|failure| *failure != name);
        }
    }

    fn note(&mut self, note: impl Into<String>) {
        let note = note.into();
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    /// Takes one line of a test program's output into account.
    pub(crate) fn read(&mut self, line: &str) {
        if let Some(totals) = line.strip_prefix("test result: ") {
            for total in totals.split([';', '.']) {
                match total.trim().split_once(' ') {
                    Some((number, "passed")) => self.passed += number.parse().unwrap_or(0),
                    Some((number, "failed")) => self.failed += number.parse().unwrap_or(0),
                    Some((number, "ignored")) => self.skipped += number.parse().unwrap_or(0),
                    _ => {}
                }
            }
        } else if let Some((name, end)) = line
            .strip_prefix("test ")
            .and_then(|test| test.split_once(" ... "))
        {
            if end.starts_with("FAILED") {
                self.note(name);
                self.failures.push(name.to_owned());
            } else if end == "ok" {
                self.passes.push(name.to_owned());
            } else if let Some(reason) = end.strip_prefix("ignored, ") {
                self.note(reason);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Counts;

    #[test]
    fn totals_of_several_programs_add_up_and_failures_are_named() {
        let mut counts = Counts::default();
        let said = "running 3 tests\n\
            test a::one ... ok\n\
            test a::two ... FAILED\n\
            test a::three ... ignored, takes a terminal\n\
            test result: FAILED. 1 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s\n\
            test result: ok. 12 passed; 0 failed; 0 ignored; 0 measured; 3 filtered out; finished in 1.50s\n";
        said.lines().for_each(|line| counts.read(line));
        let notes = vec!["a::two".to_owned(), "takes a terminal".to_owned()];
        assert_eq!(
            counts,
            Counts {
                passed: 13,
                failed: 1,
                skipped: 1,
                notes,
                failures: vec!["a::two".to_owned()],
                passes: vec!["a::one".to_owned()],
            }
        );
    }

    #[test]
    fn a_failure_that_passes_alone_is_passed_and_named() {
        let of = |said: &str| {
            let mut counts = Counts::default();
            said.lines().for_each(|line| counts.read(line));
            counts
        };
        let mut counts = of("test one ... FAILED\ntest two ... FAILED\n\
             test result: FAILED. 5 passed; 2 failed; 0 ignored\n");
        counts.second_run(&of("test one ... FAILED\ntest two ... ok\n\
             test result: FAILED. 1 passed; 1 failed; 0 ignored\n"));
        assert_eq!((counts.passed, counts.failed), (6, 1));
        assert_eq!(counts.failures, ["one"]);
        assert_eq!(
            counts.notes,
            ["one", "two failed beside others and passed alone"]
        );
    }

    #[test]
    fn other_lines_count_nothing() {
        let mut counts = Counts::default();
        for line in [
            "",
            "12 passed",
            "a test result: ok. 3 passed",
            "test output: 9 failed",
        ] {
            counts.read(line);
        }
        assert_eq!(counts, Counts::default());
    }
}
