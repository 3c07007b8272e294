//! Of the store as a whole: what is there after any end, and what becomes of any change.

mod damage;
mod killed;
mod publish;
mod quarantine;
mod races;
mod users;

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use super::*;

const MEMORY_BYTES: usize = 256 << 10;

/// A store in a folder of its own.
struct Scene {
    folder: PathBuf,
    _owner: Option<tempfile::TempDir>,
}

impl Scene {
    fn new() -> Self {
        let owner = tempfile::tempdir().unwrap();
        Self {
            folder: owner.path().into(),
            _owner: Some(owner),
        }
    }

    fn at(folder: &Path) -> Self {
        Self {
            folder: folder.into(),
            _owner: None,
        }
    }

    fn directory(&self) -> PathBuf {
        self.folder.join("snapshots")
    }

    fn store(&self) -> Store {
        self.bounded(Bounds::default())
    }

    fn bounded(&self, bounds: Bounds) -> Store {
        Store::open(&self.directory(), bounds).unwrap()
    }

    fn file(&self, snapshot: &Snapshot, name: &str) -> PathBuf {
        snapshot.path(&self.directory()).join(name)
    }

    /// The paths below the store, but for the lock's.
    fn paths(&self) -> Vec<String> {
        fn below(directory: &Path, paths: &mut Vec<PathBuf>) {
            for entry in fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    below(&path, paths);
                }
                paths.push(path);
            }
        }
        let mut paths = Vec::new();
        below(&self.directory(), &mut paths);
        paths.retain(|path| !path.ends_with("lock"));
        let mut paths: Vec<String> = paths
            .into_iter()
            .map(|path| path.to_str().unwrap().to_owned())
            .collect();
        paths.sort();
        paths
    }
}

fn key() -> Key {
    Key {
        function: "shop".parse().unwrap(),
        version: 7,
        config: Digest::of(b"configuration"),
    }
}

fn cpu() -> Cpu {
    Cpu {
        vendor: "AuthenticAMD".to_owned(),
        features: [("00000001.ecx".to_owned(), 0x0f)].into(),
    }
}

fn host() -> Host {
    Host {
        cpu: cpu(),
        state_format: 1,
    }
}

fn description(kind: Kind) -> Description {
    Description {
        kind,
        producer: "hearth 0.1.0".to_owned(),
        state_format: 1,
        cpu: cpu(),
        regions: vec![
            Region {
                guest: 0,
                offset: 0,
                bytes: 64 << 10,
            },
            Region {
                guest: 1 << 32,
                offset: 64 << 10,
                bytes: (MEMORY_BYTES as u64) - (64 << 10),
            },
        ],
    }
}

/// Memory of which most is zero.
fn memory(salt: u8) -> Vec<u8> {
    let mut memory = vec![0; MEMORY_BYTES];
    for (index, byte) in memory.iter_mut().enumerate().skip(8192).take(12288) {
        *byte = u8::try_from(index % 251).unwrap() ^ salt;
    }
    memory[MEMORY_BYTES - 1] = salt | 1;
    memory
}

fn state(salt: u8) -> Vec<u8> {
    vec![salt; 3000]
}

fn draft(store: &Store, salt: u8) -> Draft {
    let draft = store.begin(&key(), true).unwrap();
    write_memory(&draft.memory, 0, &memory(salt)).unwrap();
    draft.state.write_all_at(&state(salt), 0).unwrap();
    draft
        .disk
        .as_ref()
        .unwrap()
        .write_all_at(b"disk", 0)
        .unwrap();
    draft
}

fn publish(store: &Store, salt: u8) -> Snapshot {
    draft(store, salt)
        .publish(description(Kind::Template))
        .unwrap()
}

/// That all of it is what was published with this salt.
fn check(opened: &Opened, salt: u8) {
    let mut read = vec![0; MEMORY_BYTES];
    opened.memory.read_exact_at(&mut read, 0).unwrap();
    assert!(read == memory(salt), "another memory");
    assert_eq!(opened.state, state(salt));
    let mut disk = [0; 4];
    opened
        .disk
        .as_ref()
        .unwrap()
        .read_exact_at(&mut disk, 0)
        .unwrap();
    assert_eq!(&disk, b"disk");
}

fn refusal(store: &Store, snapshot: &Snapshot) -> String {
    store.restore(snapshot, &host()).unwrap_err().to_string()
}

/// Removes what nobody uses any more. Other tests start processes, and these have copies of all
/// descriptors until their program runs: that is waited for.
fn removed(store: &Store, snapshot: &Snapshot) -> u64 {
    for _ in 0..10_000 {
        match store.remove(snapshot) {
            Err(SnapshotError::InUse(_)) => std::thread::sleep(std::time::Duration::from_millis(1)),
            other => return other.unwrap(),
        }
    }
    panic!("somebody uses {snapshot:?}");
}
