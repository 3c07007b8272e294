//! The directories of the hierarchy, and being told of their changes: what is made or removed,
//! and whose limit or counters change.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;

use super::controller::Version;

/// Directories that are watched; the rest are looked for by walking.
const DIRECTORIES: usize = 16_384;
/// How deep a walk goes.
const DEPTH: usize = 32;
/// What is told of a directory. Writes to its files are: a limit is written, and the kernel
/// itself marks `memory.events` as written when a counter moves.
const TOLD: WatchFlags = WatchFlags::CREATE
    .union(WatchFlags::DELETE)
    .union(WatchFlags::MOVE)
    .union(WatchFlags::MODIFY)
    .union(WatchFlags::ONLYDIR);

/// What happened to a cgroup; paths are below the mount, the mount itself is empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// It was made, or moved to this name.
    Made(Arc<str>),
    /// It is gone; only one that has none below it can go.
    Gone(Arc<str>),
    /// It was moved away, with all below it.
    Moved(Arc<str>),
    /// Its limit was written.
    Limit(Arc<str>),
    /// One of its counters moved.
    Counted(Arc<str>),
    /// The kernel had more to tell than it keeps.
    Lost,
}

/// The directories that are known.
#[derive(Debug)]
pub(super) struct Tree {
    mount: PathBuf,
    version: Version,
    inotify: Option<OwnedFd>,
    paths: HashMap<i32, Arc<str>>,
    watches: HashMap<Arc<str>, i32>,
    /// Directories that the kernel would not watch, as of the last walk.
    unwatched: u64,
}

impl Tree {
    /// Knows none yet.
    pub(super) fn new(mount: &Path, version: Version) -> Self {
        let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC);
        if let Err(error) = &inotify {
            tracing::info!("new limits are looked for twice a minute: inotify: {error}");
        }
        Self {
            mount: mount.to_owned(),
            version,
            inotify: inotify.ok(),
            paths: HashMap::new(),
            watches: HashMap::new(),
            unwatched: 0,
        }
    }

    /// What to wait for.
    pub(super) const fn fd(&self) -> Option<&OwnedFd> {
        self.inotify.as_ref()
    }

    /// Whether every change will be told.
    pub(super) const fn is_complete(&self) -> bool {
        self.inotify.is_some() && self.unwatched == 0
    }

    /// The directory of a path.
    pub(super) fn directory(&self, path: &str) -> PathBuf {
        self.mount.join(path.trim_start_matches('/'))
    }

    /// Finds all there are now, and forgets the others.
    pub(super) fn walk(&mut self) -> Vec<Arc<str>> {
        self.unwatched = 0;
        let mut found = Vec::new();
        self.descend(&"".into(), DEPTH, &mut found);
        let there: HashSet<_> = found.iter().collect();
        let gone: Vec<_> = self
            .watches
            .keys()
            .filter(|path| !there.contains(path))
            .cloned()
            .collect();
        for path in &gone {
            self.unwatch(path);
        }
        found
    }

    /// Finds what is at `path` and below.
    pub(super) fn walk_at(&mut self, path: &Arc<str>) -> Vec<Arc<str>> {
        let mut found = Vec::new();
        let depth = DEPTH.saturating_sub(path.matches('/').count());
        self.descend(path, depth, &mut found);
        found
    }

    fn descend(&mut self, path: &Arc<str>, depth: usize, found: &mut Vec<Arc<str>>) {
        let directory = self.directory(path);
        // Before it is read, so that nothing is made in between.
        self.watch(path, &directory);
        found.push(path.clone());
        let entries = fs::read_dir(&directory).into_iter().flatten().flatten();
        for entry in entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
            if depth == 0 || found.len() >= DIRECTORIES {
                self.unwatched += 1;
                return;
            }
            let below = format!("{path}/{}", entry.file_name().to_string_lossy());
            self.descend(&below.into(), depth - 1, found);
        }
    }

    fn watch(&mut self, path: &Arc<str>, directory: &Path) {
        let Some(inotify) = &self.inotify else {
            return;
        };
        if self.watches.contains_key(path) {
            return;
        }
        if self.watches.len() >= DIRECTORIES {
            self.unwatched += 1;
            return;
        }
        match inotify::add_watch(inotify, directory, TOLD) {
            Ok(watch) => {
                // The directory was moved here: it is the same one.
                if let Some(old) = self.paths.insert(watch, path.clone()) {
                    self.watches.remove(&old);
                }
                self.watches.insert(path.clone(), watch);
            }
            // It is gone already.
            Err(Errno::NOENT) => {}
            Err(_) => self.unwatched += 1,
        }
    }

    fn unwatch(&mut self, path: &str) {
        let Some(watch) = self.watches.remove(path) else {
            return;
        };
        self.paths.remove(&watch);
        if let Some(inotify) = &self.inotify {
            // A removed directory has lost its watch, or keeps it until it is told here.
            let _ = inotify::remove_watch(inotify, watch);
        }
    }

    /// Forgets `path`.
    pub(super) fn forget(&mut self, path: &str) {
        self.unwatch(path);
    }

    /// Forgets `path` and all below it.
    pub(super) fn forget_all(&mut self, path: &str) {
        let below = format!("{path}/");
        let gone: Vec<_> = self
            .watches
            .keys()
            .filter(|known| ***known == *path || known.starts_with(&below))
            .cloned()
            .collect();
        for path in &gone {
            self.unwatch(path);
        }
    }

    /// What happened since it was last asked, and how much the kernel had to tell. What came and
    /// went in between did not happen.
    pub(super) fn changes(&self) -> (Vec<Change>, usize) {
        let mut changes: Vec<Option<Change>> = Vec::new();
        let mut told = 0;
        let Some(inotify) = &self.inotify else {
            return (Vec::new(), told);
        };
        // Where each one is that came.
        let mut came: HashMap<Arc<str>, usize> = HashMap::new();
        let mut room = [MaybeUninit::uninit(); 16 * 1024];
        let mut reader = inotify::Reader::new(inotify, &mut room);
        while let Ok(event) = reader.next() {
            told += 1;
            let events = event.events();
            if events.contains(ReadFlags::QUEUE_OVERFLOW) {
                changes.push(Some(Change::Lost));
                continue;
            }
            let (Some(path), Some(name)) = (self.paths.get(&event.wd()), event.file_name()) else {
                continue;
            };
            let Some(change) = self.change(events, path, name.to_bytes()) else {
                continue;
            };
            match &change {
                Change::Made(path) => {
                    came.insert(path.clone(), changes.len());
                }
                Change::Gone(path) => {
                    if let Some(index) = came.remove(path) {
                        changes[index] = None;
                        continue;
                    }
                }
                // One write often comes as several events.
                _ if changes.last().and_then(Option::as_ref) == Some(&change) => continue,
                _ => {}
            }
            changes.push(Some(change));
        }
        (changes.into_iter().flatten().collect(), told)
    }

    fn change(&self, events: ReadFlags, path: &Arc<str>, name: &[u8]) -> Option<Change> {
        if events.contains(ReadFlags::ISDIR) {
            let below = format!("{path}/{}", String::from_utf8_lossy(name)).into();
            let made = ReadFlags::CREATE | ReadFlags::MOVED_TO;
            return if events.intersects(made) {
                Some(Change::Made(below))
            } else if events.contains(ReadFlags::DELETE) {
                Some(Change::Gone(below))
            } else {
                let moved = events.contains(ReadFlags::MOVED_FROM);
                moved.then_some(Change::Moved(below))
            };
        }
        if self.version.sets_limit(name) {
            return Some(Change::Limit(path.clone()));
        }
        (name == b"memory.events").then(|| Change::Counted(path.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(found: Vec<Arc<str>>) -> Vec<String> {
        let mut paths: Vec<_> = found.into_iter().map(|path| path.to_string()).collect();
        paths.sort();
        paths
    }

    #[test]
    fn what_changes_is_told() {
        let root = tempfile::tempdir().expect("a folder");
        fs::create_dir_all(root.path().join("a/b")).expect("made");
        let mut tree = Tree::new(root.path(), Version::V2);
        assert_eq!(paths(tree.walk()), ["", "/a", "/a/b"]);
        assert!(tree.is_complete());
        fs::create_dir(root.path().join("a/c")).expect("made");
        fs::write(root.path().join("a/b/memory.max"), "5").expect("written");
        fs::write(root.path().join("a/b/memory.events"), "max 1").expect("written");
        fs::write(root.path().join("a/b/cgroup.procs"), "1").expect("written");
        let (changes, _) = tree.changes();
        assert!(
            changes.contains(&Change::Made("/a/c".into())),
            "{changes:?}"
        );
        assert!(
            changes.contains(&Change::Limit("/a/b".into())),
            "{changes:?}"
        );
        assert!(
            changes.contains(&Change::Counted("/a/b".into())),
            "{changes:?}"
        );
        assert!(changes.len() <= 4, "{changes:?}");
        assert_eq!(paths(tree.walk_at(&"/a/c".into())), ["/a/c"]);
        fs::create_dir(root.path().join("a/c/d")).expect("made");
        assert_eq!(tree.changes().0, [Change::Made("/a/c/d".into())]);
    }

    #[test]
    fn what_is_gone_is_forgotten() {
        let root = tempfile::tempdir().expect("a folder");
        fs::create_dir_all(root.path().join("a/b")).expect("made");
        let mut tree = Tree::new(root.path(), Version::V2);
        tree.walk();
        fs::rename(root.path().join("a"), root.path().join("x")).expect("moved");
        let (changes, _) = tree.changes();
        assert_eq!(
            changes,
            [Change::Moved("/a".into()), Change::Made("/x".into())]
        );
        tree.forget_all("/a");
        assert_eq!(paths(tree.walk_at(&"/x".into())), ["/x", "/x/b"]);
        fs::create_dir(root.path().join("x/b/new")).expect("made");
        assert_eq!(tree.changes().0, [Change::Made("/x/b/new".into())]);
        fs::remove_dir_all(root.path().join("x")).expect("removed");
        assert_eq!(paths(tree.walk()), [""]);
        assert_eq!((tree.paths.len(), tree.watches.len()), (1, 1));
    }

    #[test]
    fn what_came_and_went_did_not_happen() {
        let root = tempfile::tempdir().expect("a folder");
        let mut tree = Tree::new(root.path(), Version::V1);
        tree.walk();
        let brief = root.path().join("brief");
        for _ in 0..100 {
            fs::create_dir(&brief).expect("made");
            fs::remove_dir(&brief).expect("removed");
        }
        assert_eq!(tree.changes(), (vec![], 200));
        fs::create_dir(&brief).expect("made");
        assert_eq!(tree.changes().0, [Change::Made("/brief".into())]);
        tree.walk_at(&"/brief".into());
        fs::remove_dir(&brief).expect("removed");
        let (changes, _) = tree.changes();
        assert_eq!(changes, [Change::Gone("/brief".into())]);
        tree.forget("/brief");
        assert_eq!(tree.watches.len(), 1);
    }
}
