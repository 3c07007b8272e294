//! Which cgroups there are, and which of them have a limit.

use std::collections::HashSet;
use std::sync::Arc;

use super::super::lock;
use super::super::tree::Change;
use super::super::watched::Watched;
use super::Rounds;
use crate::time::{Boottime, Nanos};

/// How often the whole hierarchy is walked, to find what was not told.
const WALK: Nanos = Nanos(300_000_000_000);
/// The same while changes are not told, or cgroups wait for room.
const WALK_OFTEN: Nanos = Nanos(30_000_000_000);

/// The same once changes were lost: who loses some may lose more.
const WALK_SOON: Nanos = Nanos(2_000_000_000);

impl Rounds {
    pub(super) fn walk(&mut self, now: Boottime) {
        let found = self.tree.walk();
        let there: HashSet<_> = found.iter().cloned().collect();
        let gone = self.ids.iter().filter(|(path, _)| !there.contains(*path));
        let gone: Vec<_> = gone.map(|(_, id)| *id).collect();
        for id in gone {
            self.remove(id, now);
        }
        self.counts.beyond = 0;
        for path in &found {
            self.find(path);
        }
        let is_whole = self.tree.is_complete() && self.counts.beyond == 0;
        let every = if is_whole { WALK } else { WALK_OFTEN };
        self.due.walk = Boottime(now.0 + every.0);
    }

    /// Applies what the kernel told of directories; how much it told.
    pub(super) fn apply_changes(&mut self, now: Boottime) -> usize {
        let (changes, told) = self.tree.changes();
        for change in changes {
            match change {
                Change::Made(path) => {
                    let found = self.tree.walk_at(&path);
                    for path in &found {
                        self.find(path);
                    }
                }
                Change::Gone(path) => {
                    self.tree.forget(&path);
                    if let Some(&id) = self.ids.get(&path) {
                        self.remove(id, now);
                    }
                }
                Change::Moved(path) => {
                    self.tree.forget_all(&path);
                    let below = format!("{path}/");
                    let ids = self.ids.iter();
                    let moved = ids.filter(|(one, _)| **one == path || one.starts_with(&below));
                    let moved: Vec<_> = moved.map(|(_, id)| *id).collect();
                    for id in moved {
                        self.remove(id, now);
                    }
                }
                Change::Limit(path) => self.limit_changed(&path, now),
                Change::Counted(path) => {
                    if let Some(&id) = self.ids.get(&path) {
                        self.look_now(id, now);
                    }
                }
                Change::Lost => {
                    self.counts.changes_lost += 1;
                    self.due.walk = self.due.walk.min(Boottime(now.0 + WALK_SOON.0));
                }
            }
        }
        told
    }

    /// Watches a cgroup, if it has a limit.
    fn find(&mut self, path: &Arc<str>) {
        if self.ids.contains_key(path) {
            return;
        }
        let directory = self.tree.directory(path);
        let near = self.settings.near;
        let Some(watched) = Watched::open(self.version, path, directory, near) else {
            return;
        };
        if self.watched.len() >= self.settings.max_cgroups {
            self.counts.beyond += 1;
            let soon = Boottime(Boottime::now().0 + WALK_OFTEN.0);
            self.due.walk = self.due.walk.min(soon);
            return;
        }
        self.ids.insert(path.clone(), watched.id);
        self.watched.insert(watched.id, watched);
    }

    fn limit_changed(&mut self, path: &Arc<str>, now: Boottime) {
        let Some(&id) = self.ids.get(path) else {
            return self.find(path);
        };
        let Some(watched) = self.watched.get_mut(&id) else {
            return;
        };
        if !watched.limit_changed(self.version, self.settings.near) {
            return self.remove(id, now);
        }
        let (limit, line) = (watched.limit, watched.line);
        if let Some(armed) = self.armed.get_mut(&id) {
            armed.set_limit(limit, line);
            lock(&self.board).set_limit(id, limit);
        }
        self.due.check = now;
    }

    pub(super) fn remove(&mut self, id: u64, now: Boottime) {
        self.disarm(id, now);
        if let Some(watched) = self.watched.remove(&id) {
            self.ids.remove(&watched.path);
        }
    }
}
