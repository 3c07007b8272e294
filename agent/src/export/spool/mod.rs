//! What waits to be sent: bounded, oldest first out, everything that goes unsent counted.

mod disk;

use std::collections::VecDeque;

pub(crate) use disk::Disk;
pub use disk::DiskError;

use super::record::Record;

/// Records and spans, counted together because they are lost and sent together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Items {
    /// Log records; one a start.
    pub records: u64,
    /// Spans.
    pub spans: u64,
}

impl Items {
    /// How many there are in `records`.
    pub(crate) fn of<'a>(records: impl IntoIterator<Item = &'a Record>) -> Self {
        records.into_iter().fold(Self::default(), |sum, record| {
            sum + Self {
                records: 1,
                spans: record.spans.len() as u64,
            }
        })
    }
}

impl std::ops::Add for Items {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            records: self.records + other.records,
            spans: self.spans + other.spans,
        }
    }
}

/// A first-in first-out queue in memory that overflows to disk, if there is a place.
///
/// What is on disk is always older than what is in memory, so that order is kept.
#[derive(Debug)]
pub(crate) struct Spool {
    memory: VecDeque<Record>,
    bytes: u64,
    max_bytes: u64,
    disk: Option<Disk>,
    evicted: Items,
}

impl Spool {
    /// Holds at most `max_bytes` in memory.
    #[must_use]
    pub(crate) fn new(max_bytes: u64, disk: Option<Disk>) -> Self {
        Self {
            memory: VecDeque::new(),
            bytes: 0,
            max_bytes,
            disk,
            evicted: Items::default(),
        }
    }

    /// Whether nothing waits.
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.memory.is_empty() && self.disk.as_ref().is_none_or(Disk::is_empty)
    }

    /// Records in memory, and bytes on disk.
    #[must_use]
    pub(crate) fn waiting(&self) -> (usize, u64) {
        (self.memory.len(), self.disk.as_ref().map_or(0, Disk::bytes))
    }

    /// Puts `record` behind the others, and makes room for it.
    pub(crate) fn push(&mut self, record: Record) {
        self.bytes += record.weight();
        self.memory.push_back(record);
        if self.bytes <= self.max_bytes {
            return;
        }
        // A half at a time, so that a file is worth its name.
        let target = if self.disk.is_some() {
            self.max_bytes / 2
        } else {
            self.max_bytes
        };
        let mut out = Vec::new();
        while self.bytes > target {
            out.extend(self.pop());
        }
        self.keep_on_disk(&out);
    }

    /// Takes the oldest records: at most `max` of those in memory, or all of the oldest file.
    /// They stay on disk, if that is where they are, until [`Self::done`].
    pub(crate) fn take(&mut self, max: usize) -> Vec<Record> {
        if let Some(disk) = &mut self.disk
            && let Some((records, unreadable)) = disk.take()
        {
            self.evicted = self.evicted + unreadable;
            if !records.is_empty() {
                return records;
            }
        }
        std::iter::from_fn(|| self.pop()).take(max).collect()
    }

    /// What was taken last has been sent, or is given up.
    pub(crate) fn done(&mut self) {
        if let Some(disk) = &mut self.disk {
            disk.done();
        }
    }

    /// Ends holding in memory: `unsent`, which was taken and not sent, and the rest are kept
    /// on disk, as far as there is one and they fit. Returns what is lost.
    pub(crate) fn close(&mut self, unsent: &[Record]) -> Items {
        // What was taken from a file is still in it.
        let in_file = self.disk.as_ref().is_some_and(Disk::holds_taken);
        let unsent = if in_file { &[] } else { unsent };
        let memory = std::mem::take(&mut self.memory);
        self.keep_on_disk(&unsent.iter().cloned().chain(memory).collect::<Vec<_>>());
        self.evicted
    }

    /// What was evicted since the last call.
    pub(crate) fn evicted(&mut self) -> Items {
        std::mem::take(&mut self.evicted)
    }

    fn pop(&mut self) -> Option<Record> {
        let record = self.memory.pop_front()?;
        self.bytes -= record.weight();
        Some(record)
    }

    fn keep_on_disk(&mut self, records: &[Record]) {
        if records.is_empty() {
            return;
        }
        let lost = match &mut self.disk {
            None => Items::of(records),
            Some(disk) => disk.keep(records).unwrap_or_else(|error| {
                tracing::warn!(
                    "the spool on disk refuses {} starts: {error}",
                    records.len()
                );
                Items::of(records)
            }),
        };
        self.evicted = self.evicted + lost;
    }
}

#[cfg(test)]
mod tests;
