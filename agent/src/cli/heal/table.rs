//! The audit, for people.

use std::fmt::Write as _;
use std::time::{Duration, UNIX_EPOCH};

use crate::cli::terminal::{Terminal, fit, right};
use crate::heal::audit::{Begin, Decided, Entry, Line, Outcome};
use crate::observe::oom::sentence::size;

/// Where the words of a row begin.
const INDENT: usize = 6 + 2 + 24 + 2 + 16 + 2;

/// What is above the rows.
pub(super) fn heading(terminal: &Terminal) -> String {
    let heading = format!(
        "{}  {}  {}  WHAT",
        right("LINE", 6),
        fit("WHEN", 24),
        fit("FUNCTION", 16)
    );
    terminal.dim(&heading) + "\n"
}

/// One line of the audit; nothing of one that says nothing to people.
pub(super) fn row(line: &Line, terminal: &Terminal) -> String {
    let words = match &line.entry {
        Entry::Begin(begin) => begun(begin),
        Entry::Decision(decided) => decision(decided),
        Entry::Outcome(outcome) => vec![self::outcome(outcome)],
        Entry::Removed { .. } => vec!["it was removed: what was raised is forgotten".to_owned()],
    };
    let function = line.entry.function().map_or("", |name| name.as_str());
    let at = UNIX_EPOCH + Duration::from_millis(line.unix_ms);
    let at = humantime::format_rfc3339_millis(at).to_string();
    let mut text = String::new();
    for (index, words) in words.iter().enumerate() {
        let words = terminal.show(words);
        // Writing to a string cannot fail.
        let _ = if index == 0 {
            let seq = right(&line.seq.to_string(), 6);
            let (at, function) = (fit(&at, 24), fit(function, 16));
            writeln!(text, "{seq}  {at}  {function}  {words}")
        } else {
            writeln!(text, "{:INDENT$}{words}", "")
        };
    }
    text
}

fn begun(begin: &Begin) -> Vec<String> {
    let mut words: Vec<String> = begin
        .found
        .iter()
        .map(|found| format!("hearth began, and found: {found}"))
        .collect();
    if begin.torn_bytes > 0 {
        let torn = begin.torn_bytes;
        words.push(format!(
            "hearth began, and put {torn} bytes of a torn line aside"
        ));
    }
    words
}

fn decision(decided: &Decided) -> Vec<String> {
    let Decided {
        mode,
        fault,
        decision,
        unwritten,
    } = decided;
    let mut words = vec![format!("{}: {}", fault.what.word(), decision.reason)];
    if !decision.actions.is_empty() {
        words.push(format!("{}: {}", mode.word(), decision.in_words()));
    }
    let refused = decision.refused.iter();
    words.extend(refused.map(|refused| format!("no {}: {}", refused.action, refused.why)));
    if *unwritten > 0 {
        words.push(format!("{unwritten} faults before it were only counted"));
    }
    words
}

fn outcome(outcome: &Outcome) -> String {
    let mut words = format!("of {}: {}: ", outcome.of, outcome.action);
    words += match outcome.outcome.word() {
        "would" => "would have been done",
        "dry_run" => "dry run: not done",
        "nothing" => "nothing was to be done",
        "timed_out" => "timed out",
        word => word,
    };
    if let Some(took) = outcome.took_ms {
        let _ = write!(words, " after {:?}", Duration::from_millis(took));
    }
    if let Some(sandbox) = outcome.sandbox {
        let _ = write!(words, ", sandbox {sandbox}");
    }
    if let Some(bytes) = outcome.memory_bytes {
        let _ = write!(words, " with {}", size(bytes));
    }
    if !outcome.why.is_empty() {
        let _ = write!(words, ": {}", outcome.why);
    }
    words
}
