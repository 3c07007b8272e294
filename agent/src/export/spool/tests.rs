use std::os::unix::fs::PermissionsExt as _;

use super::{Disk, Items, Spool};
use crate::export::record::{Log, Record, Span};

fn record(n: u64) -> Record {
    let span = Span {
        id: n,
        parent: 0,
        name: "x".into(),
        begin_unix_ns: n,
        end_unix_ns: n,
        attributes: vec![
            ("hearth.phase.running".into(), 1.0.into()),
            ("n".into(), n.into()),
        ],
        error: None,
        links: Vec::new(),
    };
    let log = Log {
        event: "hearth.cold_start".into(),
        unix_ns: n,
        warning: false,
        body: String::new(),
        span: n,
        attributes: vec![],
    };
    Record {
        trace_id: u128::from(n) << 64,
        spans: vec![span.clone(), span],
        log,
    }
}

fn private_dir() -> tempfile::TempDir {
    let permissions = std::fs::Permissions::from_mode(0o700);
    tempfile::Builder::new()
        .permissions(permissions)
        .tempdir()
        .expect("a directory")
}

fn drain(spool: &mut Spool) -> Vec<u64> {
    let mut next = || {
        spool.done();
        Some(spool.take(3)).filter(|records| !records.is_empty())
    };
    std::iter::from_fn(&mut next)
        .flatten()
        .map(|record| record.log.unix_ns)
        .collect()
}

#[test]
fn the_oldest_goes_first_when_memory_is_full_and_is_counted() {
    let mut spool = Spool::new(10 * record(0).weight(), None);
    (0..25).for_each(|n| spool.push(record(n)));
    assert_eq!(
        spool.evicted(),
        Items {
            records: 15,
            spans: 30
        }
    );
    assert_eq!(spool.evicted(), Items::default());
    assert_eq!(drain(&mut spool), (15..25).collect::<Vec<_>>());
    assert!(spool.is_empty());
}

#[test]
fn the_disk_takes_what_memory_does_not_and_keeps_the_order() {
    let dir = private_dir();
    let disk = Disk::open(dir.path(), 1 << 20).expect("opens");
    let mut spool = Spool::new(10 * record(0).weight(), Some(disk));
    (0..95).for_each(|n| spool.push(record(n)));
    assert_eq!(drain(&mut spool), (0..95).collect::<Vec<_>>());
    assert_eq!(spool.evicted(), Items::default());
    assert_eq!(std::fs::read_dir(dir.path()).expect("reads").count(), 0);
}

#[test]
fn what_was_not_sent_at_the_end_is_there_at_the_next_begin() {
    let dir = private_dir();
    let open = || {
        Spool::new(
            1 << 20,
            Some(Disk::open(dir.path(), 1 << 20).expect("opens")),
        )
    };
    let mut spool = open();
    (0..7).for_each(|n| spool.push(record(n)));
    let in_hand = spool.take(3);
    assert_eq!(spool.close(&in_hand), Items::default());
    let mut spool = open();
    let again = spool.take(1);
    assert_eq!(again, (0..7).map(record).collect::<Vec<_>>());
    // Put back once more: nothing is doubled.
    assert_eq!(spool.close(&again), Items::default());
    assert_eq!(drain(&mut open()), (0..7).collect::<Vec<_>>());
}

#[test]
fn a_crash_while_a_file_is_being_sent_loses_nothing() {
    let dir = private_dir();
    let open = || {
        Spool::new(
            1 << 20,
            Some(Disk::open(dir.path(), 1 << 20).expect("opens")),
        )
    };
    let mut spool = open();
    (0..4).for_each(|n| spool.push(record(n)));
    spool.close(&[]);
    assert_eq!(open().take(1).len(), 4);
    assert_eq!(drain(&mut open()), [0, 1, 2, 3]);
}

#[test]
fn the_disk_is_bounded_and_what_goes_is_counted() {
    let dir = private_dir();
    let bytes = serde_json::to_vec(&record(10)).expect("serializes").len() as u64 + 1;
    let disk = Disk::open(dir.path(), 20 * bytes).expect("opens");
    let mut spool = Spool::new(10 * record(0).weight(), Some(disk));
    (0..100).for_each(|n| spool.push(record(n)));
    let on_disk = |dir: &std::path::Path| {
        let files = std::fs::read_dir(dir).expect("reads");
        files
            .map(|file| file.expect("a file").metadata().expect("known").len())
            .sum::<u64>()
    };
    assert!(on_disk(dir.path()) <= 20 * bytes);
    let lost = spool.evicted();
    let left = drain(&mut spool);
    assert!(lost.records > 0 && lost.spans == 2 * lost.records);
    assert_eq!(left, (lost.records..100).collect::<Vec<_>>());
}

#[test]
fn a_damaged_file_is_counted_and_passed_over() {
    let dir = private_dir();
    let open = || {
        Spool::new(
            1 << 20,
            Some(Disk::open(dir.path(), 1 << 20).expect("opens")),
        )
    };
    let mut spool = open();
    (0..4).for_each(|n| spool.push(record(n)));
    spool.close(&[]);
    let file = std::fs::read_dir(dir.path())
        .expect("reads")
        .next()
        .expect("one")
        .expect("a file");
    let text = std::fs::read_to_string(file.path()).expect("text");
    std::fs::write(file.path(), &text[..text.len() / 2]).expect("written");
    std::fs::write(dir.path().join("00000000000000000009-1-2.jsonl.part"), "x").expect("written");
    let mut spool = open();
    assert_eq!(drain(&mut spool), [0, 1]);
    assert_eq!(
        spool.evicted(),
        Items {
            records: 2,
            spans: 4
        }
    );
}

#[test]
fn files_and_directory_are_ours_alone() {
    let parent = tempfile::tempdir().expect("a directory");
    let dir = parent.path().join("spool");
    let mut spool = Spool::new(1 << 20, Some(Disk::open(&dir, 1 << 20).expect("opens")));
    spool.push(record(1));
    spool.close(&[]);
    let mode = |path: &std::path::Path| {
        std::fs::metadata(path).expect("known").permissions().mode() & 0o777
    };
    assert_eq!(mode(&dir), 0o700);
    for file in std::fs::read_dir(&dir).expect("reads") {
        assert_eq!(mode(&file.expect("a file").path()), 0o600);
    }
    std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o755)).expect("set");
    let message = Disk::open(&dir, 1).expect_err("refused").to_string();
    assert!(message.contains("chmod 700"), "{message}");
}
