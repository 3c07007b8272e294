//! A bounded memory in which what lives is kept longer than what is gone.

use std::borrow::Borrow;
use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

#[derive(Debug)]
struct Entry<V> {
    value: V,
    is_gone: bool,
}

/// So many values by their keys. Room is made by those that are gone, longest first, then by the
/// oldest.
#[derive(Debug)]
pub(super) struct Remembered<K, V> {
    limit: usize,
    by: HashMap<K, Entry<V>>,
    /// By age; with keys that went meanwhile.
    order: VecDeque<K>,
    /// By when they went; with keys that came again or went meanwhile.
    gone: VecDeque<K>,
    forgotten: u64,
}

impl<K: Hash + Eq + Clone, V> Remembered<K, V> {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit,
            by: HashMap::new(),
            order: VecDeque::new(),
            gone: VecDeque::new(),
            forgotten: 0,
        }
    }

    /// Takes in a value.
    pub(super) fn put(&mut self, key: K, value: V) {
        if !self.by.contains_key(&key) {
            while self.by.len() >= self.limit && self.make_room() {}
            self.order.push_back(key.clone());
            if self.order.len() > 2 * self.limit {
                let by = &self.by;
                self.order.retain(|old| by.contains_key(old) || *old == key);
            }
        }
        let entry = Entry {
            value,
            is_gone: false,
        };
        self.by.insert(key, entry);
    }

    /// What a key has, gone or not.
    pub(super) fn get<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        Some(&self.by.get(key)?.value)
    }

    /// Whether it is known that what has this key is gone.
    pub(super) fn knows_gone(&self, key: &K) -> bool {
        self.by.get(key).is_some_and(|entry| entry.is_gone)
    }

    /// What has this key is gone: records of it may still come, so that it is kept until there is
    /// no room.
    pub(super) fn is_gone(&mut self, key: K) {
        if let Some(entry) = self.by.get_mut(&key)
            && !entry.is_gone
        {
            entry.is_gone = true;
            self.gone.push_back(key);
            if self.gone.len() > 2 * self.limit {
                let by = &self.by;
                self.gone
                    .retain(|key| by.get(key).is_some_and(|entry| entry.is_gone));
            }
        }
    }

    /// Those that were forgotten although they lived, as far as was told.
    pub(super) const fn forgotten(&self) -> u64 {
        self.forgotten
    }

    fn make_room(&mut self) -> bool {
        if let Some(key) = self.gone.pop_front() {
            if self.by.get(&key).is_some_and(|entry| entry.is_gone) {
                self.by.remove(&key);
            }
            return true;
        }
        let Some(oldest) = self.order.pop_front() else {
            return false;
        };
        self.forgotten += u64::from(self.by.remove(&oldest).is_some());
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lives_outlives_any_number_of_those_that_are_gone() {
        let mut remembered = Remembered::new(10);
        remembered.put(0, "old");
        for key in 1..1000 {
            remembered.put(key, "brief");
            remembered.is_gone(key);
        }
        assert_eq!(remembered.get(&0), Some(&"old"));
        // What has just gone is there for records that are still on their way.
        assert_eq!(remembered.get(&999), Some(&"brief"));
        assert_eq!((remembered.by.len(), remembered.forgotten()), (10, 0));
        assert!(remembered.order.len() <= 21 && remembered.gone.len() <= 10);
    }

    #[test]
    fn without_any_that_are_gone_the_oldest_goes_and_counts() {
        let mut remembered = Remembered::new(10);
        (0..15).for_each(|key| remembered.put(key, ()));
        assert_eq!((remembered.by.len(), remembered.forgotten()), (10, 5));
        assert!(remembered.get(&4).is_none() && remembered.get(&5).is_some());
    }

    #[test]
    fn what_came_again_lives() {
        let mut remembered = Remembered::new(2);
        for _ in 0..100 {
            remembered.put("again", ());
            remembered.is_gone("again");
        }
        remembered.put("again", ());
        remembered.put("gone", ());
        remembered.is_gone("gone");
        remembered.put("new", ());
        assert!(remembered.get("again").is_some() && remembered.get("gone").is_none());
        assert_eq!(remembered.forgotten(), 0);
        assert!(remembered.gone.len() <= 4);
    }
}
