//! Names of cgroups by id, as the kernel told them; bounded.

use std::collections::{HashMap, VecDeque};
use std::thread::{self, JoinHandle};

use super::hierarchy::{Cgroup, MemoryHierarchy};
use crate::time::{Boottime, Nanos};

/// Names kept; those of removed cgroups go first, then the oldest.
const NAMES: usize = 16_384;
/// How long a removed cgroup keeps its name, for marks that are still on their way.
const GRACE: Nanos = Nanos(10_000_000_000);
/// How often, at most, the hierarchy is walked for an unknown id.
const WALK_EVERY: Nanos = Nanos(5_000_000_000);

#[derive(Debug, Default)]
struct Entry {
    path: Option<Box<str>>,
    populated_since: Option<Boottime>,
}

/// What is known of cgroups, by id.
#[derive(Debug, Default)]
pub struct CgroupNames {
    hierarchy: Option<MemoryHierarchy>,
    entries: HashMap<u64, Entry>,
    order: VecDeque<u64>,
    gone: VecDeque<(Boottime, u64)>,
    walked: Option<Boottime>,
    walking: Option<JoinHandle<Vec<Cgroup>>>,
    evicted: u64,
}

impl CgroupNames {
    /// Knows nothing but what it will be told.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Knows what is in `hierarchy` now, and looks there again for ids that nobody told.
    #[must_use]
    pub fn of(hierarchy: MemoryHierarchy) -> Self {
        let mut names = Self {
            hierarchy: Some(hierarchy),
            ..Self::default()
        };
        names.walk();
        names
    }

    /// The kernel told a path.
    pub fn tell(&mut self, id: u64, path: &str) {
        self.entry(id).path = Some(path.into());
    }

    /// A cgroup became populated.
    pub fn populated(&mut self, id: u64, at: Boottime) {
        let since = &mut self.entry(id).populated_since;
        *since = (*since).max(Some(at));
    }

    /// A cgroup was removed: its name goes after a grace.
    pub fn gone(&mut self, id: u64, at: Boottime) {
        if self.entries.contains_key(&id) {
            self.gone.push_back((at, id));
        }
    }

    /// Forgets what was removed long enough before `now`.
    pub fn sweep(&mut self, now: Boottime) {
        while let Some(&(at, id)) = self.gone.front() {
            if now.since(at) < GRACE && self.gone.len() <= NAMES {
                break;
            }
            self.gone.pop_front();
            self.entries.remove(&id);
        }
        if self.order.len() > 2 * NAMES {
            self.order.retain(|id| self.entries.contains_key(id));
        }
    }

    /// Path within its hierarchy, if it was told.
    #[must_use]
    pub fn path(&self, id: u64) -> Option<&str> {
        self.entries.get(&id)?.path.as_deref()
    }

    /// As [`path`](Self::path), and looks into the hierarchy for an id that nobody told.
    pub fn look_up(&mut self, id: u64, now: Boottime) -> Option<&str> {
        if self.is_worth_a_walk(id, now) {
            self.walk();
            self.walked = Some(now);
        }
        self.path(id)
    }

    /// As [`look_up`](Self::look_up) for who can ask again: does not wait for the walk, so that
    /// its names are there the next time.
    pub fn ask(&mut self, id: u64, now: Boottime) -> Option<&str> {
        let walked = self.walking.take_if(|walking| walking.is_finished());
        if let Some(Ok(found)) = walked.map(JoinHandle::join) {
            self.take_in(found);
        }
        if self.walking.is_none()
            && self.is_worth_a_walk(id, now)
            && let Some(hierarchy) = self.hierarchy.clone()
        {
            let thread = thread::Builder::new().name("hearth-walk".to_owned());
            self.walking = thread.spawn(move || hierarchy.walk()).ok();
            self.walked = Some(now);
        }
        self.path(id)
    }

    fn is_worth_a_walk(&self, id: u64, now: Boottime) -> bool {
        let rested = self
            .walked
            .is_none_or(|walked| now.since(walked) >= WALK_EVERY);
        id != 0 && self.path(id).is_none() && rested && self.hierarchy.is_some()
    }

    /// Since when there were processes in it, if that is known.
    #[must_use]
    pub fn populated_since(&self, id: u64) -> Option<Boottime> {
        self.entries.get(&id)?.populated_since
    }

    /// How many names of living cgroups were dropped because there were too many.
    #[must_use]
    pub const fn evicted(&self) -> u64 {
        self.evicted
    }

    fn walk(&mut self) {
        let found = self.hierarchy.as_ref().map(MemoryHierarchy::walk);
        self.take_in(found.unwrap_or_default());
    }

    fn take_in(&mut self, found: Vec<Cgroup>) {
        for cgroup in found {
            let entry = self.entry(cgroup.id);
            entry.path = Some(cgroup.path.into());
            if cgroup.populated && entry.populated_since.is_none() {
                // Nobody saw since when: before everything that will be seen.
                entry.populated_since = Some(Boottime(0));
            }
        }
    }

    fn entry(&mut self, id: u64) -> &mut Entry {
        if !self.entries.contains_key(&id) {
            while self.entries.len() >= NAMES && self.make_room() {}
            self.order.push_back(id);
        }
        self.entries.entry(id).or_default()
    }

    /// Lets go of one name. A storm of short-lived cgroups must not cost a pod its name: what is
    /// removed goes first, its grace cut short. Only the name of a living cgroup is a loss.
    fn make_room(&mut self) -> bool {
        if let Some((_, removed)) = self.gone.pop_front() {
            self.entries.remove(&removed);
            return true;
        }
        let Some(oldest) = self.order.pop_front() else {
            return false;
        };
        self.evicted += u64::from(self.entries.remove(&oldest).is_some());
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_outlives_its_cgroup_for_a_grace() {
        let mut names = CgroupNames::new();
        names.tell(7, "/a");
        names.gone(7, Boottime(1));
        names.sweep(Boottime(GRACE.0));
        assert_eq!(names.path(7), Some("/a"));
        names.sweep(Boottime(GRACE.0 + 1));
        assert_eq!(names.path(7), None);
    }

    #[test]
    fn names_are_bounded_and_the_oldest_go() {
        let mut names = CgroupNames::new();
        for id in 0..NAMES as u64 + 10 {
            names.tell(id, "/x");
        }
        assert_eq!((names.entries.len(), names.evicted()), (NAMES, 10));
        assert_eq!((names.path(9), names.path(10)), (None, Some("/x")));
    }

    #[test]
    fn a_storm_of_short_lived_cgroups_costs_the_living_nothing() {
        let mut names = CgroupNames::new();
        names.tell(1, "/pod");
        for id in 2..3 * NAMES as u64 {
            names.tell(id, "/x");
            names.gone(id, Boottime(0));
            names.sweep(Boottime(0));
        }
        assert_eq!((names.entries.len(), names.evicted()), (NAMES, 0));
        assert_eq!(names.path(1), Some("/pod"));
        assert!(names.order.len() <= 2 * NAMES + 1);
        names.sweep(Boottime(GRACE.0));
        assert_eq!((names.entries.len(), names.gone.len()), (1, 0));
    }

    #[test]
    fn a_cgroup_nobody_told_is_looked_up_in_the_hierarchy() {
        let hierarchy = MemoryHierarchy::find().expect("a hierarchy with the memory controller");
        let known = hierarchy.walk().pop().expect("a cgroup");
        let mut names = CgroupNames {
            hierarchy: Some(hierarchy),
            ..CgroupNames::default()
        };
        assert_eq!(names.path(known.id), None);
        assert_eq!(names.look_up(known.id, Boottime(1)), Some(&*known.path));
        // An id that does not exist is not looked for at every turn.
        assert_eq!(names.look_up(u64::MAX, Boottime(2)), None);
        assert_eq!(names.walked, Some(Boottime(1)));
    }

    #[test]
    fn who_can_ask_again_need_not_wait_for_the_walk() {
        let hierarchy = MemoryHierarchy::find().expect("a hierarchy with the memory controller");
        let known = hierarchy.walk().pop().expect("a cgroup");
        let mut names = CgroupNames {
            hierarchy: Some(hierarchy),
            ..CgroupNames::default()
        };
        assert_eq!(names.ask(known.id, Boottime(1)), None);
        while names.walking.is_some() {
            names.ask(known.id, Boottime(2));
        }
        assert_eq!(names.path(known.id), Some(&*known.path));
        assert_eq!(names.walked, Some(Boottime(1)));
    }
}
