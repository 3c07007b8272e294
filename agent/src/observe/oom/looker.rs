//! The thread that looks at the cgroups of a kill: at their files, and for their paths where no
//! record told them. Reading `memory.stat` adds up what all CPUs counted, and a walk through the
//! hierarchy takes as long as it is large: records must not wait for that.

use std::collections::HashMap;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::time::{Duration, Instant};

use caps::Capability;
use hearth_abi::OomKill;

use super::assembler::{Key, concerned, key_of};
use super::cgroup_state::Hierarchy;
use super::model::{CgroupState, Known, Reason};
use crate::observe::identity::MemoryHierarchy;
use crate::privilege;
use crate::time::{Boottime, Nanos};

/// Kills that wait to be looked at: more than there are captures at a time.
const WAITING: usize = 256;
/// How often, at most, the hierarchy is walked.
const WALK_EVERY: Nanos = Nanos(5_000_000_000);

/// The cgroups of one kill, with their paths as far as these are known.
#[derive(Clone, Debug)]
pub struct Cgroups {
    /// The victim's.
    pub victim: Place,
    /// The asker's.
    pub asker: Place,
    /// That whose limit was hit, else the victim's.
    pub concerned: Place,
}

/// A cgroup's id, and its path if it is known.
pub type Place = (u64, Option<String>);

impl Cgroups {
    /// Those of `kill`; `told` are the paths that are known.
    pub fn of(kill: &OomKill, told: impl Fn(u64) -> Option<String>) -> Self {
        let place = |id| (id, told(id));
        Self {
            victim: place(kill.victim.cgroup),
            asker: place(kill.asker.cgroup),
            concerned: place(concerned(kill)),
        }
    }
}

/// What was seen.
#[derive(Debug)]
pub struct Looked {
    /// Of which kill.
    pub key: Key,
    /// Its cgroups.
    pub cgroups: Cgroups,
    /// What the files of the one that is concerned say.
    pub state: Known<CgroupState>,
}

/// Handle on the thread. It ends when this is dropped, which does not wait for it: a file may hang.
#[derive(Debug)]
pub struct Looker {
    waiting: Option<SyncSender<(Key, Cgroups)>>,
    looked: Receiver<Looked>,
}

impl Looker {
    /// Starts the thread, which looks in the hierarchy at `place`.
    pub fn start(place: Option<MemoryHierarchy>) -> std::io::Result<Self> {
        let (waiting, kills) = sync_channel(WAITING);
        // Not more than went in.
        let (told, looked) = channel();
        std::thread::Builder::new()
            .name("hearth-looks".to_owned())
            .spawn(move || {
                if let Err(error) = privilege::keep_only(&[Capability::CAP_DAC_READ_SEARCH], &[]) {
                    tracing::warn!(
                        "the thread that looks at cgroups keeps its capabilities: {error}"
                    );
                }
                Looking::new(place).run(&kills, &told);
            })?;
        Ok(Self {
            waiting: Some(waiting),
            looked,
        })
    }

    /// Has the cgroups of `kill` looked at; false where too many wait.
    #[must_use]
    pub fn look(&self, kill: &OomKill, cgroups: Cgroups) -> bool {
        let waiting = self.waiting.as_ref();
        waiting.is_some_and(|waiting| waiting.try_send((key_of(kill), cgroups)).is_ok())
    }

    /// What was seen since it was last asked.
    pub fn looked(&self) -> impl Iterator<Item = Looked> {
        self.looked.try_iter()
    }

    /// What was seen since it was last asked, and will be within `patience`, until all is.
    pub fn finish(&mut self, patience: Duration) -> Vec<Looked> {
        self.waiting = None;
        let end = Instant::now() + patience;
        let rest = || end.saturating_duration_since(Instant::now());
        std::iter::from_fn(|| self.looked.recv_timeout(rest()).ok()).collect()
    }
}

/// What the thread works on.
struct Looking {
    place: Option<MemoryHierarchy>,
    hierarchy: Option<Hierarchy>,
    /// Paths by id as of the last walk, and when that was.
    walked: Option<(Boottime, HashMap<u64, String>)>,
}

impl Looking {
    fn new(place: Option<MemoryHierarchy>) -> Self {
        let hierarchy = place.clone().and_then(|place| {
            Hierarchy::open(place)
                .inspect_err(|error| tracing::warn!("cgroups cannot be looked at: {error}"))
                .ok()
        });
        Self {
            place,
            hierarchy,
            walked: None,
        }
    }

    fn run(mut self, kills: &Receiver<(Key, Cgroups)>, told: &Sender<Looked>) {
        while let Ok((key, mut cgroups)) = kills.recv() {
            // First that which may be gone soon.
            self.find(&mut cgroups.concerned);
            let (id, path) = &cgroups.concerned;
            let state = self.hierarchy.as_ref().map_or_else(
                || {
                    let why = "no hierarchy with the memory controller is mounted";
                    Known::absent(Reason::Unreadable, why)
                },
                |hierarchy| hierarchy.look(*id, path.as_deref()),
            );
            self.find(&mut cgroups.victim);
            self.find(&mut cgroups.asker);
            let looked = Looked {
                key,
                cgroups,
                state,
            };
            if told.send(looked).is_err() {
                return;
            }
        }
    }

    /// Finds the path of a cgroup of which no record told it.
    fn find(&mut self, (id, path): &mut Place) {
        if *id == 0 || path.is_some() {
            return;
        }
        let now = Boottime::now();
        let is_stale = |(at, paths): &(Boottime, HashMap<u64, String>)| {
            now.since(*at) >= WALK_EVERY && !paths.contains_key(id)
        };
        if let Some(place) = &self.place
            && self.walked.as_ref().is_none_or(is_stale)
        {
            let found = place.walk().into_iter();
            let paths = found.map(|cgroup| (cgroup.id, cgroup.path)).collect();
            self.walked = Some((now, paths));
        }
        *path = self
            .walked
            .as_ref()
            .and_then(|(_, paths)| paths.get(id).cloned());
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::MetadataExt as _;
    use std::path::PathBuf;

    use rustix::fs::{CWD, FileType, Mode, mknodat};
    use tempfile::TempDir;

    use super::*;

    /// A hierarchy of plain files, with the cgroup `/a/b`, its directory and its id.
    fn hierarchy() -> (TempDir, PathBuf, u64) {
        let mount = tempfile::tempdir().expect("a folder");
        let directory = mount.path().join("a/b");
        fs::create_dir_all(&directory).expect("made");
        fs::write(mount.path().join("cgroup.controllers"), "memory\n").expect("written");
        fs::write(directory.join("memory.current"), "5\n").expect("written");
        let id = fs::metadata(&directory).expect("it is there").ino();
        (mount, directory, id)
    }

    #[test]
    fn a_cgroup_is_looked_at_and_found_where_nobody_told_its_path() {
        let (mount, _, id) = hierarchy();
        let place = MemoryHierarchy::at(mount.path(), "");
        let (told, looked) = channel();
        let (waiting, kills) = sync_channel(3);
        let unknown = Cgroups {
            victim: (id, None),
            asker: (0, None),
            concerned: (id, None),
        };
        let known = Cgroups {
            concerned: (id, Some("/a/b".into())),
            ..unknown.clone()
        };
        for (key, cgroups) in [((1, 1), unknown), ((2, 2), known)] {
            waiting.send((key, cgroups)).expect("room");
        }
        drop(waiting);
        Looking::new(Some(place)).run(&kills, &told);
        drop(told);
        let looked: Vec<_> = looked.iter().collect();
        assert_eq!(looked.len(), 2);
        for one in looked {
            assert_eq!(one.cgroups.concerned.1.as_deref(), Some("/a/b"));
            assert_eq!(one.cgroups.victim.1.as_deref(), Some("/a/b"));
            assert_eq!(one.cgroups.asker.1, None);
            let state = one.state.value().expect("read");
            assert_eq!(state.usage_bytes.value(), Some(&5));
        }
    }
    #[test]
    fn a_file_that_hangs_keeps_nobody_from_ending() {
        let (mount, directory, id) = hierarchy();
        // Whoever opens it waits for somebody who writes to it.
        let stat = directory.join("memory.stat");
        mknodat(CWD, &stat, FileType::Fifo, Mode::RUSR, 0).expect("made");
        let place = MemoryHierarchy::at(mount.path(), "");
        let mut looker = Looker::start(Some(place)).expect("starts");
        let waiting = looker.waiting.as_ref().expect("it runs");
        for (n, path) in [(1, "/gone"), (2, "/a/b"), (3, "/gone")] {
            let place = (id, Some(path.to_owned()));
            let cgroups = Cgroups {
                victim: place.clone(),
                asker: place.clone(),
                concerned: place,
            };
            waiting.send(((n, 1), cgroups)).expect("room");
        }
        let (done, ended) = channel();
        std::thread::spawn(move || {
            let first = looker.looked.recv().expect("it is not behind the file");
            let rest = looker.finish(Duration::ZERO);
            drop(looker);
            done.send((first.key.0, rest.len()))
        });
        let seen = ended.recv_timeout(Duration::from_mins(1));
        assert_eq!(seen, Ok((1, 0)));
        // The thread goes on, to its end.
        drop(fs::File::options().read(true).write(true).open(&stat));
    }
}
