#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;

use tempfile::TempDir;

use super::*;
use crate::heal::audit::{Audit, Decided, Entry, Outcome, Resolved};
use crate::heal::decide::{Action, Decision, Refused};
use crate::heal::{Fault, Mode, What};
use crate::time::Boottime;

fn shop() -> FunctionName {
    "shop".parse().unwrap()
}

fn written() -> (TempDir, Files) {
    let folder = TempDir::new().unwrap();
    let dir = folder.path().join("heal");
    let (mut audit, _) = Audit::open(&dir, 8 << 20, "boot").unwrap();
    let decided = Decided {
        mode: Mode::Act,
        fault: Fault {
            what: What::Crashed {
                how: "exit status 7".to_owned(),
            },
            function: shop(),
            version: 1,
            instance: 1,
            lost: None,
            request: None,
            at: Boottime(1),
        },
        decision: Decision {
            actions: vec![Action::Replace { after_ms: 10_000 }],
            reason: "it ended by itself (\u{1b}[31mexit status 7)".to_owned(),
            refused: vec![Refused {
                action: "replay".to_owned(),
                why: "the function is not declared `idempotent`".to_owned(),
            }],
        },
        unwritten: 3,
    };
    let outcome = Outcome {
        of: 2,
        function: shop(),
        action: "replace".to_owned(),
        outcome: Resolved::Done,
        sandbox: None,
        memory_bytes: Some(64 << 20),
        request: None,
        took_ms: Some(10_250),
        why: String::new(),
    };
    let entries = [Entry::Decision(Box::new(decided)), Entry::Outcome(outcome)];
    audit
        .append(Boottime(2), 1_700_000_000_000, &entries)
        .unwrap();
    let files = Files::open(&dir).unwrap();
    (folder, files)
}

#[test]
fn the_table_says_what_happened_what_was_done_and_what_came_of_it() {
    let (_folder, files) = written();
    let (lines, _) = files.read().unwrap();
    let rows = lines
        .iter()
        .map(|(line, _)| table::row(line, &Terminal::PLAIN));
    let text = rows.collect::<String>();
    let expected = "     \
     2  2023-11-14T22:13:20.000Z  shop              crashed: it ended by itself (\\u{1b}[31mexit status 7)
                                                    act: replace it after 10 s
                                                    no replay: the function is not declared `idempotent`
                                                    3 faults before it were only counted
     3  2023-11-14T22:13:20.000Z  shop              of 2: replace: done after 10.25s with 64 MiB
";
    assert_eq!(text, expected, "\n{text}");
}

#[test]
fn json_is_the_very_text_of_the_file() {
    let (folder, files) = written();
    let (lines, _) = files.read().unwrap();
    let text: String = lines
        .iter()
        .map(|(line, link)| json(line, *link).unwrap())
        .collect();
    let file = fs::read_to_string(folder.path().join("heal/audit.jsonl")).unwrap();
    assert_eq!(text, file);
}

#[test]
fn an_audit_that_was_changed_ends_with_a_failure() {
    let (folder, files) = written();
    assert_eq!(verify(&files).unwrap(), ExitCode::SUCCESS);
    let path = folder.path().join("heal/audit.jsonl");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("\"act\"", "\"dry-run\"")).unwrap();
    assert_eq!(verify(&files).unwrap(), ExitCode::FAILURE);
}
