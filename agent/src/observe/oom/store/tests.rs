use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::PathBuf;

use tempfile::TempDir;

use super::*;
use crate::observe::oom::samples;

const BOUNDS: Bounds = Bounds {
    captures: 3,
    bytes: 1 << 20,
};

struct Place {
    _folder: TempDir,
    dir: PathBuf,
}

fn place() -> Place {
    let folder = TempDir::new().expect("a folder");
    let dir = folder.path().join("captures");
    Place {
        _folder: folder,
        dir,
    }
}

fn capture(second: u64) -> Capture {
    let mut capture = samples::whole();
    capture.id = CaptureId::of(samples::KILLED + second * 1_000_000_000, 1);
    capture.killed.0 += second;
    capture
}

fn note(second: u64) -> Note {
    let capture = capture(second);
    Note {
        killed: capture.killed,
        killed_unix_ns: samples::KILLED + second * 1_000_000_000,
        pid: 1,
        comm: "sh\nop".into(),
        cgroup: capture.cgroup,
    }
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).expect("lists");
    let name = |entry: std::io::Result<fs::DirEntry>| entry.expect("entry").file_name();
    let mut names: Vec<_> = entries
        .map(|entry| name(entry).to_string_lossy().into_owned())
        .collect();
    names.sort_unstable();
    names
}

fn ids(dir: &Path) -> Vec<String> {
    let ids = Captures::open(dir).expect("opens").ids().expect("lists");
    ids.iter().map(ToString::to_string).collect()
}

#[test]
fn what_was_kept_is_read_back_and_only_its_owner_can() {
    let Place { _folder, dir } = place();
    let mut store = Store::open(&dir, BOUNDS, Notes::new()).expect("opens");
    for mut kept in [samples::whole(), samples::bare()] {
        store.keep(&mut kept).expect("kept");
        let captures = Captures::open(&dir).expect("opens beside the writer");
        assert_eq!(captures.read(&kept.id).expect("reads"), kept);
        let file = dir.join(format!("{}.oom", kept.id));
        let mode = |path: &Path| {
            fs::metadata(path)
                .expect("it is there")
                .permissions()
                .mode()
        };
        assert_eq!(mode(&file) & 0o7777, 0o600);
        assert_eq!(mode(&dir) & 0o7777, 0o700);
    }
    // Both were of one kill, by their names.
    assert_eq!(
        ids(&dir),
        ["20260102T030405.678Z-4711-2", "20260102T030405.678Z-4711"]
    );
    let none = "20200101T000000.000Z-1".parse().expect("a name");
    let error = Captures::open(&dir).expect("opens").read(&none);
    let error = error.expect_err("there is none").to_string();
    assert!(error.contains("hearth oom list"), "{error}");
}

#[test]
fn the_oldest_go_first_and_are_counted() {
    let Place { _folder, dir } = place();
    let mut store = Store::open(&dir, BOUNDS, Notes::new()).expect("opens");
    for second in [5, 1, 2, 3, 4] {
        store.keep(&mut capture(second)).expect("kept");
    }
    assert_eq!(store.counts().evicted, 2);
    let left = [5, 4, 3].map(|second| capture(second).id.to_string());
    assert_eq!(ids(&dir), left);
    drop(store);

    let one = fs::metadata(dir.join(format!("{}.oom", left[0])))
        .expect("it is there")
        .len();
    let bounds = Bounds {
        captures: 3,
        bytes: 2 * one,
    };
    let mut store = Store::open(&dir, bounds, Notes::new()).expect("opens with less room");
    assert_eq!((store.counts().evicted, store.held()), (1, (2, 2 * one)));
    store.keep(&mut capture(6)).expect("kept");
    assert_eq!(store.held(), (2, 2 * one));
    drop(store);

    let bounds = Bounds {
        captures: 3,
        bytes: one - 1,
    };
    let mut store = Store::open(&dir, bounds, Notes::new()).expect("opens with hardly any room");
    let error = store.keep(&mut capture(7)).expect_err("too large");
    assert!(error.to_string().contains("oom.max_bytes"), "{error}");
    assert_eq!(store.held(), (0, 0));
}

#[test]
fn what_a_dead_agent_left_unfinished_goes_and_is_counted() {
    let Place { _folder, dir } = place();
    let mut store = Store::open(&dir, BOUNDS, Notes::new()).expect("opens");
    store.keep(&mut capture(1)).expect("kept");
    drop(store);
    fs::write(dir.join(".20260102T030406.000Z-1.part"), "HEARTHOM half").expect("written");
    fs::write(dir.join("notes"), "not ours").expect("written");
    let store = Store::open(&dir, BOUNDS, Notes::new()).expect("opens");
    assert_eq!(store.counts().unfinished, 1);
    assert_eq!(ids(&dir), [capture(1).id.to_string()]);
    let mut names = fs::read_dir(&dir)
        .expect("lists")
        .map(|entry| entry.expect("entry").file_name());
    assert_eq!(
        names.by_ref().count(),
        2,
        "the capture and what is not ours"
    );
}

#[test]
fn a_kill_is_noted_until_its_capture_is_kept_and_told_by_the_next_agent_if_it_is_not() {
    let Place { _folder, dir } = place();
    let mut store = Store::open(&dir, BOUNDS, Notes::new()).expect("opens");
    let mut kept = capture(1);
    kept.victim.pid = 1;
    store.note(&note(1)).expect("noted");
    assert_eq!(names(&dir), [format!(".{}.part", kept.id)]);
    // The wall clock was set meanwhile.
    kept.id = capture(9).id;
    store.keep(&mut kept).expect("kept");
    assert_eq!(names(&dir), [format!("{}.oom", capture(1).id)]);
    // One that cannot be kept has a reason of its own.
    store.bounds.bytes = 1;
    store.note(&note(2)).expect("noted");
    kept.killed = note(2).killed;
    store.keep(&mut kept).expect_err("too large");
    store.bounds = BOUNDS;
    assert_eq!(names(&dir).len(), 1);

    // It dies: before a capture was written, in the midst of that, and right after it.
    let id = |second| note(second).id();
    store.note(&note(3)).expect("noted");
    store.note(&note(4)).expect("noted");
    fs::write(dir.join(format!(".{}.whole", id(4))), "HEARTHOM half").expect("written");
    fs::write(dir.join(format!(".{}.part", capture(1).id)), "").expect("written");
    drop(store);
    let store = Store::open(&dir, BOUNDS, Notes::new()).expect("opens");
    assert_eq!(store.counts().unfinished, 2);
    let left: Vec<_> = store.left().iter().map(ToString::to_string).collect();
    for (left, second) in left.iter().zip([8, 9]) {
        let expected = format!(
            "\"sh\\nop\" (pid 1), in the cgroup \"/shop\", killed for want of memory at \
             2026-01-02T03:04:0{second}.678Z"
        );
        assert_eq!(*left, expected);
    }
    assert_eq!(names(&dir), [format!("{}.oom", capture(1).id)]);
}

#[test]
fn notes_of_this_agent_outlive_that_its_store_is_opened_again() {
    let Place { _folder, dir } = place();
    let mut store = Store::open(&dir, BOUNDS, Notes::new()).expect("opens");
    store.note(&note(1)).expect("noted");
    let (notes, _) = store.close();
    let store = Store::open(&dir, BOUNDS, notes).expect("opens");
    assert_eq!((store.counts().unfinished, names(&dir).len()), (0, 1));
    store.end();
    assert!(names(&dir).is_empty());
}

#[test]
fn no_link_is_followed() {
    let Place { _folder, dir } = place();
    let elsewhere = TempDir::new().expect("a folder");
    symlink(elsewhere.path(), &dir).expect("a link");
    let error = Store::open(&dir, BOUNDS, Notes::new()).expect_err("refused");
    assert!(matches!(error, StoreError::Link(_)), "{error}");
    fs::remove_file(&dir).expect("removed");

    let mut store = Store::open(&dir, BOUNDS, Notes::new()).expect("opens");
    let target = elsewhere.path().join("target");
    fs::write(&target, "precious").expect("written");
    let id = capture(1).id;
    symlink(&target, dir.join(format!("{id}.oom"))).expect("a link");
    symlink(&target, dir.join(format!(".{}.whole", capture(2).id))).expect("a link");
    symlink(&target, dir.join(format!(".{}.part", note(3).id()))).expect("a link");
    store.note(&note(3)).expect_err("refused");
    // The name is taken, and the unfinished one is a link.
    for second in [1, 2] {
        store.keep(&mut capture(second)).expect_err("refused");
    }
    let error = Captures::open(&dir).expect("opens").read(&id);
    error.expect_err("a link is not read");
    assert_eq!(fs::read_to_string(&target).expect("reads"), "precious");
}

#[test]
fn a_directory_that_others_can_enter_is_refused() {
    let Place { _folder, dir } = place();
    fs::create_dir(&dir).expect("made");
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).expect("opened up");
    let error = Store::open(&dir, BOUNDS, Notes::new())
        .expect_err("refused")
        .to_string();
    assert!(error.contains("chmod 700"), "{error}");
}

#[test]
fn two_agents_do_not_share_a_directory() {
    let Place { _folder, dir } = place();
    let first = Store::open(&dir, BOUNDS, Notes::new()).expect("opens");
    let error = Store::open(&dir, BOUNDS, Notes::new()).expect_err("refused");
    assert!(matches!(error, StoreError::Busy(_)), "{error}");
    drop(first);
    Store::open(&dir, BOUNDS, Notes::new()).expect("opens");
}

#[test]
fn damage_is_told_from_a_capture() {
    let Place { _folder, dir } = place();
    let mut store = Store::open(&dir, BOUNDS, Notes::new()).expect("opens");
    let mut kept = samples::whole();
    store.keep(&mut kept).expect("kept");
    let file = dir.join(format!("{}.oom", kept.id));
    let whole = fs::read(&file).expect("reads");
    let read = |bytes: &[u8]| {
        fs::write(&file, bytes).expect("written");
        let error = Captures::open(&dir).expect("opens").read(&kept.id);
        // As it is printed for people: with its sources.
        format!("{:#}", anyhow::Error::from(error.expect_err("damaged")))
    };
    for (cut, says) in [
        (10, "too few"),
        (40, "cut off"),
        (whole.len() - 1, "cut off"),
    ] {
        let error = read(&whole[..cut]);
        assert_eq!(error.matches(says).count(), 1, "{error}");
    }
    for (at, says) in [
        (0, "not a capture"),
        (8, "header"),
        (20, "header"),
        (32, "body"),
        (whole.len() - 1, "body"),
    ] {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        let error = read(&bytes);
        assert_eq!(error.matches(says).count(), 1, "{at}: {error}");
    }
}

#[test]
fn a_file_with_another_version_or_a_false_length_is_refused_before_it_is_read() {
    let bytes = format::encode(&samples::whole()).expect("encodes");
    let with = |at: usize, value: &[u8]| {
        let mut bytes = bytes.clone();
        bytes[at..at + value.len()].copy_from_slice(value);
        let sum = crc32fast::hash(&bytes[..28]);
        bytes[28..32].copy_from_slice(&sum.to_le_bytes());
        format::decode(&bytes).expect_err("refused").to_string()
    };
    assert!(with(8, &[2, 0]).contains("version 2"));
    assert!(with(12, &[9]).contains("encoding 9"));
    assert!(with(16, &[0xff; 8]).contains("claims"));
}
