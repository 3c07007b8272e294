//! A bounded memory of starts that ended, so that their late marks open none anew.

use std::collections::{HashSet, VecDeque};

use super::open::Key;
use crate::time::Boottime;

/// The keys of ended starts; the oldest go.
#[derive(Debug)]
pub(super) struct Ended {
    keys: HashSet<Key>,
    order: VecDeque<Key>,
    limit: usize,
    /// Watched starts opened before this ended so long ago that they were forgotten.
    forgotten: Boottime,
}

impl Ended {
    pub(super) fn new(limit: usize) -> Self {
        let (keys, order) = (HashSet::new(), VecDeque::new());
        Self {
            keys,
            order,
            limit,
            forgotten: Boottime(0),
        }
    }

    pub(super) fn remember(&mut self, key: Key) {
        if !self.keys.insert(key) {
            return;
        }
        self.order.push_back(key);
        while self.order.len() > self.limit {
            let oldest = self
                .order
                .pop_front()
                .filter(|oldest| self.keys.remove(oldest));
            if let Some(Key::Watch(id)) = oldest {
                self.forgotten = self.forgotten.max(Boottime(id));
            }
        }
    }

    /// Whether a start has ended; of a watched one also when it must have been forgotten.
    pub(super) fn contains(&self, key: Key) -> bool {
        let stale = matches!(key, Key::Watch(id) if Boottime(id) <= self.forgotten);
        stale || self.keys.contains(&key)
    }

    /// A process has ended: nothing more will come.
    pub(super) fn forget(&mut self, key: Key) {
        self.keys.remove(&key);
        if self.order.len() > 2 * self.keys.len() + 64 {
            self.order.retain(|key| self.keys.contains(key));
        }
    }
}
