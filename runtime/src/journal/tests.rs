//! Of the journal as a whole: what is there after its writer was killed at any byte.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use proptest::collection::vec;
use proptest::prelude::*;

use super::line;
use super::{Entry, Journal, JournalError, Life, Lives};
use crate::cgroup::Baseline;
use crate::id::{Epoch, SandboxId, SlotName};
use crate::process::{Process, StartTime};

fn id(number: u8) -> SandboxId {
    format!("00000000000000{number:02x}").parse().unwrap()
}

fn begin(number: u8, epoch: u32) -> Entry {
    Entry::Begin(Life {
        sandbox: id(number),
        epoch: Epoch(epoch),
        function: None,
        before: Baseline::default(),
        slot: SlotName(number.into()),
        uid: 200_000 + u32::from(number),
        process: None,
    })
}

fn entries() -> impl Strategy<Value = Entry> {
    (0..6_u8, 1..4_u32, 0..4_u8, 2..9_u32).prop_map(|(number, epoch, what, pid)| {
        let (sandbox, epoch) = (id(number), Epoch(epoch));
        let process = Process {
            pid,
            start: StartTime(u64::from(pid) * 7),
        };
        match what {
            0 => begin(number, epoch.0),
            1 => Entry::Spawned {
                sandbox,
                epoch,
                process,
            },
            2 => Entry::Claimed {
                sandbox,
                epoch,
                function: "resize".parse().unwrap(),
                before: Baseline {
                    oom_kills: Some(u64::from(pid)),
                    peak_bytes: None,
                    cpu_us: Some(u64::MAX),
                },
            },
            _ => Entry::End { sandbox, epoch },
        }
    })
}

fn after(entries: &[Entry]) -> Lives {
    let mut lives = Lives::default();
    for entry in entries {
        lives.apply(entry.clone());
    }
    lives
}

struct Place {
    _folder: tempfile::TempDir,
    directory: PathBuf,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self {
            directory: folder.path().join("hearth"),
            _folder: folder,
        }
    }

    fn file(&self) -> PathBuf {
        self.directory.join("journal")
    }
}

fn refusal(directory: &Path) -> String {
    Journal::open(directory).unwrap_err().to_string()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whoever is killed while it writes leaves what it had written before: no life is forgotten
    /// whose begin was written whole, and none is there that did not begin.
    #[test]
    fn killed_at_any_byte_it_says_what_was_written_before(entries in vec(entries(), 1..24), share in 0.0..=1.0_f64) {
        let place = Place::new();
        let (mut journal, replay) = Journal::open(&place.directory).unwrap();
        prop_assert!(replay.lives.is_empty() && !replay.other_boot);
        let mut sizes = vec![std::fs::metadata(place.file()).unwrap().len()];
        for entry in &entries {
            journal.append(entry.clone()).unwrap();
            sizes.push(std::fs::metadata(place.file()).unwrap().len());
        }
        prop_assert_eq!(journal.lives(), &after(&entries));
        drop(journal);
        // Cut anywhere after the first line, which a rename puts there as a whole.
        let (first, last) = (sizes[0], sizes[entries.len()]);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "some byte of a small file")]
        let cut = first + ((last - first) as f64 * share) as u64;
        let file = std::fs::OpenOptions::new().write(true).open(place.file()).unwrap();
        file.set_len(cut).unwrap();
        let (mut journal, replay) = Journal::open(&place.directory).unwrap();
        // A line that lacks no more than its end is whole.
        let whole = sizes.iter().filter(|size| **size <= cut + 1).count() - 1;
        prop_assert_eq!(&replay.lives, &after(&entries[..whole]));
        prop_assert!(replay.damaged <= 1 && !replay.other_boot && !replay.other_version);
        // And it goes on from there.
        journal.append(begin(9, 1)).unwrap();
        drop(journal);
        let (_, replay) = Journal::open(&place.directory).unwrap();
        prop_assert!(replay.lives.get(id(9)).is_some() && replay.damaged == 0);
    }

    #[test]
    fn any_bytes_are_read(bytes in vec(any::<u8>(), 0..2000)) {
        let _ = line::read(&bytes);
    }
}

#[test]
fn a_damaged_line_costs_only_itself() {
    let mut bytes = Vec::new();
    for number in 1..=3 {
        line::write(&begin(number, 1), &mut bytes).unwrap();
    }
    let at = bytes.windows(6).position(|part| part == b"200002").unwrap();
    bytes[at] = b'9';
    let lines = line::read(&bytes);
    assert_eq!((lines.lives.len(), lines.damaged), (2, 1));
    assert!(lines.lives.get(id(2)).is_none());
}

#[test]
fn an_entry_of_a_former_life_says_nothing() {
    let mut lives = after(&[begin(1, 1), begin(1, 2)]);
    lives.apply(Entry::End {
        sandbox: id(1),
        epoch: Epoch(1),
    });
    assert_eq!(lives.get(id(1)).map(|life| life.epoch), Some(Epoch(2)));
}

#[test]
fn history_does_not_pile_up() {
    let place = Place::new();
    let (mut journal, _) = Journal::open(&place.directory).unwrap();
    journal.append(begin(7, 1)).unwrap();
    for _ in 0..10_000 {
        journal.append(begin(1, 1)).unwrap();
        journal
            .append(Entry::End {
                sandbox: id(1),
                epoch: Epoch(1),
            })
            .unwrap();
    }
    assert!(std::fs::metadata(place.file()).unwrap().len() < 300 * 1024);
    assert!(journal.trouble().is_none());
    drop(journal);
    let (_, replay) = Journal::open(&place.directory).unwrap();
    assert_eq!(replay.lives, after(&[begin(7, 1)]));
}

#[test]
fn a_process_of_another_boot_is_nobody() {
    let place = Place::new();
    let (mut journal, _) = Journal::open(&place.directory).unwrap();
    journal.append(begin(1, 1)).unwrap();
    let (sandbox, epoch) = (id(1), Epoch(1));
    let process = Process {
        pid: 1,
        start: StartTime(1),
    };
    journal
        .append(Entry::Spawned {
            sandbox,
            epoch,
            process,
        })
        .unwrap();
    drop(journal);
    let text = std::fs::read_to_string(place.file()).unwrap();
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let mut bytes = Vec::new();
    let header = line::Header {
        journal: line::VERSION,
        boot: "another".into(),
    };
    line::write(&header, &mut bytes).unwrap();
    let lines = text.lines().filter(|line| !line.contains(boot.trim()));
    bytes.extend_from_slice(lines.collect::<Vec<_>>().join("\n").as_bytes());
    std::fs::write(place.file(), bytes).unwrap();
    for other_boot in [true, false] {
        let (_, replay) = Journal::open(&place.directory).unwrap();
        assert_eq!(replay.other_boot, other_boot);
        assert_eq!(replay.lives.get(id(1)).map(|life| life.process), Some(None));
    }
}

#[test]
fn two_never_have_it() {
    let place = Place::new();
    let first = Journal::open(&place.directory).unwrap();
    let told = Journal::open(&place.directory).unwrap_err();
    assert!(matches!(told, JournalError::Busy { .. }), "{told}");
    drop(first);
    Journal::open(&place.directory).unwrap();
}

#[test]
fn what_others_could_have_made_is_refused() {
    let place = Place::new();
    std::fs::create_dir(&place.directory).unwrap();
    std::fs::set_permissions(&place.directory, PermissionsExt::from_mode(0o755)).unwrap();
    assert!(refusal(&place.directory).contains("others may use it (mode 0755)"));
    let link = place.directory.with_file_name("link");
    symlink(&place.directory, &link).unwrap();
    assert!(refusal(&link).contains("symbolic link"));
    std::fs::set_permissions(&place.directory, PermissionsExt::from_mode(0o700)).unwrap();
    let elsewhere = place.directory.with_file_name("elsewhere");
    std::fs::write(&elsewhere, "precious").unwrap();
    for name in ["journal", "journal.new", "lock"] {
        let link = place.directory.join(name);
        let _ = std::fs::remove_file(&link);
        symlink(&elsewhere, &link).unwrap();
        assert!(Journal::open(&place.directory).is_err(), "{name}");
        std::fs::remove_file(link).unwrap();
    }
    assert_eq!(std::fs::read_to_string(elsewhere).unwrap(), "precious");
    Journal::open(&place.directory).unwrap();
    let mode = |name| {
        std::fs::metadata(place.directory.join(name))
            .unwrap()
            .permissions()
            .mode()
            & 0o777
    };
    assert_eq!((mode("journal"), mode("lock")), (0o600, 0o600));
}
