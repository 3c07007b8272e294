#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::PathBuf;

use tempfile::TempDir;

use super::*;
use crate::heal::decide::{Action, Decision};
use crate::heal::fault::{Fault, Mode, What};
use crate::time::Boottime;

const MIB: u64 = 1 << 20;

struct Place {
    _folder: TempDir,
    dir: PathBuf,
}

fn place() -> Place {
    let folder = TempDir::new().unwrap();
    let dir = folder.path().join("heal");
    Place {
        _folder: folder,
        dir,
    }
}

impl Place {
    fn open(&self) -> (Audit, Opened) {
        Audit::open(&self.dir, 8 * MIB, "boot").unwrap()
    }

    fn file(&self) -> PathBuf {
        self.dir.join("audit.jsonl")
    }

    fn read(&self) -> (Vec<Line>, Vec<Found>) {
        let (lines, found) = Files::open(&self.dir).unwrap().read().unwrap();
        (lines.into_iter().map(|(line, _)| line).collect(), found)
    }
}

fn raise(function: &str, bytes: u64, mode: Mode) -> Entry {
    Entry::Decision(Box::new(Decided {
        mode,
        fault: Fault {
            what: What::OomKilled {
                limit_bytes: bytes / 2,
                peak_bytes: None,
            },
            function: function.parse().unwrap(),
            version: 3,
            instance: 1,
            lost: None,
            request: None,
            failing: None,
            at: Boottime(1),
        },
        decision: Decision {
            actions: vec![Action::Raise {
                after_ms: 0,
                from_bytes: bytes / 2,
                to_bytes: bytes,
            }],
            ..Decision::default()
        },
        unwritten: 0,
    }))
}

fn done(of: u64, function: &str) -> Entry {
    Entry::Outcome(Outcome {
        of,
        function: function.parse().unwrap(),
        action: "raise".to_owned(),
        outcome: Resolved::Done,
        sandbox: None,
        memory_bytes: None,
        request: None,
        took_ms: Some(7),
        why: String::new(),
    })
}

fn put(audit: &mut Audit, entry: Entry) -> u64 {
    audit.append(Boottime(1), 1, &[entry]).unwrap().0[0]
}

#[test]
fn the_next_agent_knows_what_was_raised_and_what_was_under_way() {
    let place = place();
    let (mut audit, opened) = place.open();
    assert_eq!(opened, Opened::default());
    let first = put(&mut audit, raise("shop", 200 * MIB, Mode::Act));
    put(&mut audit, done(first, "shop"));
    let second = put(&mut audit, raise("cart", 300 * MIB, Mode::Act));
    put(&mut audit, raise("plan", 300 * MIB, Mode::DryRun));
    drop(audit);

    let (mut audit, opened) = place.open();
    assert_eq!(opened, Opened::default());
    let standing = audit.standing();
    let raised = |name: &str, version| standing.raised(&name.parse().unwrap(), version);
    assert_eq!(raised("shop", 3), Some(200 * MIB));
    assert_eq!(raised("shop", 4), None, "another version");
    assert_eq!(raised("plan", 3), None, "nothing was done");
    let open: Vec<u64> = standing.open().map(|open| open.of).collect();
    assert_eq!(open, [second]);
    let removed = Entry::Removed {
        function: "shop".parse().unwrap(),
    };
    put(&mut audit, removed);
    assert_eq!(audit.standing().open().count(), 0);
    drop(audit);

    let (lines, found) = place.read();
    assert_eq!(found, []);
    let unknown = lines.iter().find_map(|line| match &line.entry {
        Entry::Outcome(outcome) if outcome.outcome == Resolved::Unknown => Some(outcome),
        _ => None,
    });
    let unknown = unknown.unwrap();
    assert_eq!((unknown.of, &*unknown.why), (second, "the agent ended"));
    let (audit, _) = place.open();
    let shop = "shop".parse().unwrap();
    assert_eq!(audit.standing().raised(&shop, 3), None, "it was removed");
}

#[test]
fn it_is_bounded_and_the_chain_and_what_is_raised_go_on_over_files() {
    let place = place();
    let (mut audit, _) = Audit::open(&place.dir, 32 << 10, "boot").unwrap();
    put(&mut audit, raise("kept", 100 * MIB, Mode::Act));
    for _ in 0..500 {
        let of = put(&mut audit, raise("shop", 200 * MIB, Mode::Act));
        put(&mut audit, done(of, "shop"));
    }
    let sizes: Vec<u64> = fs::read_dir(&place.dir)
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.path().extension().is_some_and(|is| is == "jsonl"))
        .map(|entry| entry.metadata().unwrap().len())
        .collect();
    assert_eq!(sizes.len(), 8);
    assert!(sizes.iter().sum::<u64>() <= 32 << 10, "{sizes:?}");
    let (lines, found) = place.read();
    assert_eq!(found, []);
    let first = lines[0].seq;
    assert!(first > 1, "the oldest went");
    let numbers = lines.iter().map(|line| line.seq);
    assert!(numbers.eq(first..first + lines.len() as u64));
    drop(audit);
    let (audit, opened) = place.open();
    assert_eq!(opened, Opened::default());
    let kept = "kept".parse().unwrap();
    assert_eq!(audit.standing().raised(&kept, 3), Some(100 * MIB));
}

#[test]
fn an_agent_that_is_killed_while_it_writes_loses_that_line_and_no_other() {
    let place = place();
    let (mut audit, _) = place.open();
    put(&mut audit, raise("shop", 200 * MIB, Mode::Act));
    drop(audit);
    let whole = fs::read(place.file()).unwrap();
    for cut in [1, 70, 200] {
        let mut torn = whole.clone();
        torn.extend_from_slice(&whole[..cut]);
        fs::write(place.file(), &torn).unwrap();
        fs::remove_file(place.dir.join("head")).unwrap();
        let (mut audit, opened) = place.open();
        assert_eq!(opened.torn_bytes, cut as u64);
        assert_eq!(opened.found, Vec::<String>::new());
        let shop = "shop".parse().unwrap();
        assert_eq!(audit.standing().raised(&shop, 3), Some(200 * MIB));
        put(&mut audit, raise("cart", 1, Mode::Observe));
        drop(audit);
        let (lines, found) = place.read();
        assert_eq!(found, []);
        let told = lines.iter().find_map(|line| match &line.entry {
            Entry::Begin(begin) if begin.torn_bytes > 0 => Some(begin.torn_bytes),
            _ => None,
        });
        assert_eq!(told, Some(cut as u64), "{lines:#?}");
        let aside = fs::read_dir(&place.dir).unwrap().find_map(|entry| {
            let path = entry.unwrap().path();
            (path.extension()? == "part").then_some(path)
        });
        assert_eq!(fs::read(aside.unwrap()).unwrap(), whole[..cut]);
    }
    // Of the first line of all, too.
    fs::remove_dir_all(&place.dir).unwrap();
    fs::DirBuilder::new().create(&place.dir).unwrap();
    fs::set_permissions(&place.dir, fs::Permissions::from_mode(0o700)).unwrap();
    fs::write(place.file(), &whole[..40]).unwrap();
    let (mut audit, opened) = place.open();
    assert_eq!(opened.torn_bytes, 40);
    put(&mut audit, raise("cart", 1, Mode::Observe));
    assert_eq!(place.read().1, []);
}

#[test]
fn what_was_changed_or_taken_away_is_told_kept_and_gone_on_from() {
    let change = |text: &str| text.replace("\"version\":3", "\"version\":4");
    let cut = |text: &str| {
        let mut lines: Vec<&str> = text.split_inclusive('\n').collect();
        lines.pop();
        lines.concat()
    };
    let nothing = |_: &str| String::new();
    for (edit, says) in [
        (&change as &dyn Fn(&str) -> String, "line 2 does not follow"),
        (&cut, "lines 3 to 3 are missing"),
        (&nothing, "lines 1 to 3 are missing"),
    ] {
        let place = place();
        let (mut audit, _) = place.open();
        let of = put(&mut audit, raise("shop", 200 * MIB, Mode::Act));
        put(&mut audit, done(of, "shop"));
        drop(audit);
        let text = fs::read_to_string(place.file()).unwrap();
        fs::write(place.file(), edit(&text)).unwrap();
        let (_, found) = place.read();
        assert!(!found.is_empty(), "{says}");

        let (mut audit, opened) = place.open();
        assert!(opened.found[0].contains(says), "{opened:?}");
        assert!(put(&mut audit, raise("cart", 1, Mode::Act)) > 3);
        // As it was found it is there for who wants to look at it.
        let aside = place.dir.join("audit-00000000000000000003.jsonl");
        assert!(aside.exists() || text == edit(&text), "{says}");
        drop(audit);
        let (_, found) = place.read();
        assert!(found.iter().any(|one| one.what.contains(says)), "{found:?}");
        let (_, opened) = place.open();
        assert_eq!(opened, Opened::default(), "it was told");
    }
}

#[test]
fn a_rotation_that_was_interrupted_loses_nothing() {
    let place = place();
    let (mut audit, _) = place.open();
    put(&mut audit, raise("shop", 200 * MIB, Mode::Act));
    drop(audit);
    let to = place.dir.join("audit-00000000000000000002.jsonl");
    fs::rename(place.file(), to).unwrap();
    assert_eq!(place.read().1, []);
    let (mut audit, opened) = place.open();
    assert_eq!(opened, Opened::default());
    let shop = "shop".parse().unwrap();
    assert_eq!(audit.standing().raised(&shop, 3), Some(200 * MIB));
    assert_eq!(put(&mut audit, raise("cart", 1, Mode::Observe)), 5);
    assert_eq!(place.read().1, []);
}

#[test]
fn what_somebody_takes_away_or_cuts_while_it_is_written_is_gone_on_from_and_told() {
    let take = |path: &PathBuf| fs::remove_file(path);
    let rename = |path: &PathBuf| fs::rename(path, path.with_extension("1"));
    let cut = |path: &PathBuf| fs::write(path, "");
    let put_away = |path: &PathBuf| {
        let to = path.with_file_name("audit-00000000000000000009.jsonl");
        fs::rename(path, to)
    };
    for (what, edit) in [
        ("taken", &take as &dyn Fn(&PathBuf) -> std::io::Result<()>),
        ("renamed", &rename),
        ("cut", &cut),
        ("put away", &put_away),
    ] {
        let place = place();
        let (mut audit, _) = place.open();
        put(&mut audit, raise("shop", 200 * MIB, Mode::Act));
        edit(&place.file()).unwrap();
        let of = put(&mut audit, raise("cart", 100 * MIB, Mode::Act));
        put(&mut audit, done(of, "cart"));
        let (lines, found) = place.read();
        let told = |found: &[Found]| found.iter().any(|one| one.what.contains("after line 2"));
        assert!(told(&found), "{what}: {found:?}");
        assert!(lines.iter().any(|line| line.seq == of), "{what}");
        drop(audit);
        let (audit, opened) = place.open();
        assert_eq!(opened, Opened::default(), "{what}");
        let shop = "shop".parse().unwrap();
        assert_eq!(audit.standing().raised(&shop, 3), Some(200 * MIB), "{what}");
    }
}

#[test]
fn one_file_too_many_that_cannot_be_removed_is_no_reason_to_write_nothing() {
    let place = place();
    let (mut audit, _) = Audit::open(&place.dir, 8 << 10, "boot").unwrap();
    // It is the oldest, and no file.
    let in_the_way = place.dir.join("audit-00000000000000000000.jsonl");
    fs::create_dir_all(in_the_way.join("full")).unwrap();
    for _ in 0..50 {
        let of = put(&mut audit, raise("shop", 200 * MIB, Mode::Act));
        put(&mut audit, done(of, "shop"));
    }
}

#[test]
fn it_is_for_nobody_else_follows_no_link_and_has_one_writer() {
    let place = place();
    let (mut audit, _) = place.open();
    put(&mut audit, raise("shop", 1, Mode::Act));
    for (path, mode) in [(place.dir.clone(), 0o700), (place.file(), 0o600)] {
        assert_eq!(fs::metadata(path).unwrap().mode() & 0o777, mode);
    }
    let busy = Audit::open(&place.dir, 8 * MIB, "boot").unwrap_err();
    assert!(matches!(busy, AuditError::Busy(_)), "{busy}");
    drop(audit);
    let precious = place.dir.join("precious");
    fs::rename(place.file(), &precious).unwrap();
    symlink(&precious, place.file()).unwrap();
    Audit::open(&place.dir, 8 * MIB, "boot").unwrap_err();
    fs::remove_file(place.file()).unwrap();
    fs::set_permissions(&place.dir, fs::Permissions::from_mode(0o755)).unwrap();
    let shared = Audit::open(&place.dir, 8 * MIB, "boot").unwrap_err();
    assert!(shared.to_string().contains("0755"), "{shared}");
}

#[test]
fn actions_and_outcomes_go_by_the_words_that_are_counted() {
    use crate::observe::healing::{ACTIONS, OUTCOMES};
    let written = Resolved::ALL.map(Resolved::word);
    assert_eq!(written, OUTCOMES[..written.len()]);
    let (after_ms, from_bytes, to_bytes) = (0, 1, 2);
    let actions = [
        Action::Replace { after_ms },
        Action::Raise {
            after_ms,
            from_bytes,
            to_bytes,
        },
        Action::Replay { replay: 1 },
    ];
    assert_eq!(actions.map(|action| action.word()), ACTIONS);
}

#[test]
fn some_lines_are_the_newest_of_those_that_are_wanted_over_all_files() {
    let place = place();
    let (mut audit, _) = Audit::open(&place.dir, 16 << 10, "boot").unwrap();
    for number in 0..24 {
        let function = if number % 4 == 0 { "shop" } else { "cart" };
        put(
            &mut audit,
            raise(function, (200 + number) * MIB, Mode::Observe),
        );
    }
    let files = Files::open(&place.dir).unwrap();
    assert!(fs::read_dir(&place.dir).unwrap().count() > 5, "many files");
    let mut wanted = Wanted {
        last: 3,
        before: None,
        function: None,
    };
    let seq = |text: &str| serde_json::from_str::<Line>(text).unwrap().seq;
    // A page at a time, from the end.
    let mut all = Vec::new();
    loop {
        let page = files.some(&wanted).unwrap();
        let Some(first) = page.lines().next() else {
            break;
        };
        assert!(page.ends_with('\n') && page.lines().count() <= 3, "{page}");
        wanted.before = Some(seq(first));
        all.splice(0..0, page.lines().map(seq));
    }
    let lines = place.read().0;
    assert!(all.iter().eq(lines.iter().map(|line| &line.seq)), "{all:?}");
    (wanted.before, wanted.function) = (None, Some("shop".parse().unwrap()));
    let of = files.some(&wanted).unwrap();
    assert_eq!(of.matches("\"entry\":\"decision\"").count(), 3, "{of}");
    assert_eq!(of.matches("\"function\":\"shop\"").count(), 3, "{of}");
    assert!(
        of.lines()
            .last()
            .unwrap()
            .contains(&(220 * MIB).to_string())
    );
    // What cannot be read of them is passed over.
    let text = fs::read_to_string(place.file()).unwrap();
    fs::write(place.file(), format!("{text}torn")).unwrap();
    assert_eq!(files.some(&wanted).unwrap(), of);
}
