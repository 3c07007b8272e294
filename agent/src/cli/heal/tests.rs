#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;

use hearth_runtime::id::{RequestId, SandboxId};
use serde_json::Value;
use tempfile::TempDir;

use super::super::schema::faults_of;
use super::*;
use crate::heal::audit::{Audit, Decided, Entry, Outcome, Resolved};
use crate::heal::decide::{Action, Decision, Refused};
use crate::heal::fault::{Failing, Interrupted, Lost};
use crate::heal::{Fault, Mode, What};
use crate::time::Boottime;

const SCHEMA: &str = include_str!("../../../../docs/schema/heal-log.schema.json");

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
            failing: None,
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
fn whatever_is_printed_is_described_and_what_is_wrong_is_found() {
    let faults = [
        What::OomKilled {
            limit_bytes: 1,
            peak_bytes: None,
        },
        What::Hung { after_ms: 1 },
        What::NotStarted { why: String::new() },
        What::Killed { how: String::new() },
        What::Silent { how: String::new() },
        What::Crashed { how: String::new() },
    ];
    let (folder, files) = written();
    let (lines, _) = files.read().unwrap();
    let mut entries: Vec<Entry> = lines.into_iter().map(|(line, _)| line.entry).collect();
    for (index, what) in faults.into_iter().enumerate() {
        let Entry::Decision(decided) = &entries[1] else {
            panic!("{:?}", entries[1]);
        };
        let mut decided = decided.clone();
        decided.mode = [Mode::Observe, Mode::DryRun, Mode::Act][index % 3];
        decided.fault.what = what;
        let sandbox = SandboxId::random().unwrap();
        decided.fault.lost = Some(Lost {
            sandbox,
            slot: "slot-0001".to_owned(),
            cgroup: Some("/hearth/slot-0001".to_owned()),
            claimed: Some(Boottime(5)),
        });
        decided.fault.request = Some(Interrupted {
            id: RequestId::from_u128(7),
            left_ms: 1,
            replays: 0,
        });
        decided.fault.failing = Some(Failing {
            failures: 2,
            until: Boottime(7),
        });
        decided.decision.actions = vec![
            Action::Raise {
                after_ms: 0,
                from_bytes: 1,
                to_bytes: 2,
            },
            Action::Replay { replay: 1 },
        ];
        entries.push(Entry::Decision(decided));
    }
    for resolved in Resolved::ALL {
        let Entry::Outcome(outcome) = &entries[2] else {
            panic!("{:?}", entries[2]);
        };
        let mut outcome = outcome.clone();
        outcome.outcome = resolved;
        outcome.request = Some(RequestId::from_u128(7));
        outcome.sandbox = Some(SandboxId::random().unwrap());
        outcome.why = "why".to_owned();
        entries.push(Entry::Outcome(outcome));
    }
    entries.push(Entry::Removed { function: shop() });
    let dir = folder.path().join("heal");
    let append = |entries: &[Entry], boot| {
        let (mut audit, _) = Audit::open(&dir, 8 << 20, boot).unwrap();
        audit.append(Boottime(3), 1, entries).unwrap();
    };
    append(&entries[1..], "boot");
    // The next one begins with all that is known, of a file that was cut.
    append(&entries[3..4], "boot");
    let path = dir.join("audit.jsonl");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, &text[..text.len() - 30]).unwrap();
    append(&[], "boot");
    let (lines, _) = files.read().unwrap();
    let of = |value: &Value| faults_of(SCHEMA, value);
    for (line, link) in &lines {
        let value: Value = serde_json::from_str(&json(line, *link).unwrap()).unwrap();
        assert_eq!(of(&value), Vec::<String>::new(), "{value}");
        for (key, wrong) in [("entry", "other"), ("seq", "1"), ("new", "1")] {
            let mut changed = value.clone();
            changed[key] = wrong.into();
            assert!(!of(&changed).is_empty(), "{changed}");
        }
    }
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
