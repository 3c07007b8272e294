//! The last starts, for the page.

use std::collections::VecDeque;

use crate::observe::cold_start::ColdStart;

/// Starts that are kept.
const MAX_STARTS: usize = 1000;

/// Bytes of JSON that are kept.
const MAX_BYTES: usize = 2 << 20;

/// One start.
#[derive(Clone, Debug)]
pub struct Told {
    /// When it ended, nanoseconds since 1970.
    pub end_unix_ns: u64,
    /// Its function.
    pub name: String,
    /// Its trace.
    pub trace_id: u128,
    /// A line that says it all.
    pub line: String,
    /// The start, as the stable JSON interface has it.
    pub json: Box<str>,
}

/// The last starts, newest first; bounded in number and bytes.
#[derive(Debug, Default)]
pub struct History {
    told: VecDeque<Told>,
    bytes: usize,
}

impl History {
    /// Adds a start.
    pub fn add(&mut self, told: Told) {
        self.bytes += told.json.len();
        self.told.push_front(told);
        while self.told.len() > MAX_STARTS || (self.bytes > MAX_BYTES && self.told.len() > 1) {
            self.bytes -= self.told.pop_back().map_or(0, |old| old.json.len());
        }
    }

    /// The starts, newest first.
    pub fn iter(&self) -> impl Iterator<Item = &Told> {
        self.told.iter()
    }
}

/// The JSON of a start.
#[must_use]
pub(super) fn json(start: &ColdStart) -> Box<str> {
    // Plain numbers, strings, lists and maps with string keys always serialize.
    serde_json::to_string(start)
        .unwrap_or_default()
        .into_boxed_str()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(n: u64, bytes: usize) -> Told {
        let json = " ".repeat(bytes).into_boxed_str();
        Told {
            end_unix_ns: n,
            name: String::new(),
            trace_id: 0,
            line: String::new(),
            json,
        }
    }

    #[test]
    fn the_oldest_goes_first() {
        let mut history = History::default();
        (0..1500).for_each(|n| history.add(told(n, 1)));
        let ends = history
            .iter()
            .map(|told| told.end_unix_ns)
            .collect::<Vec<_>>();
        assert_eq!((ends.len(), ends[0], ends[999]), (1000, 1499, 500));
        (0..5).for_each(|n| history.add(told(n, MAX_BYTES / 2)));
        assert_eq!(history.iter().count(), 2);
    }
}
