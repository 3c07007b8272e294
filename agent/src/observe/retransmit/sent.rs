//! Segments sent, by network namespace, from the kernel's own counters.
//!
//! `/proc/PID/net/snmp` is that of the namespace of a process: for another namespace than the
//! agent's own somebody who is in it has to be found.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use super::Netns;
use crate::time::{Boottime, Nanos};

/// Namespaces whose counters are read, beside the agent's own.
const NAMESPACES: usize = 100;
/// How long a search for processes in them is good for.
const SEARCH_EVERY: Nanos = Nanos(30_000_000_000);
/// Processes that one search looks at.
const PROCESSES: usize = 32_768;

/// Segments of one namespace since it exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SentSegments {
    /// Which.
    pub netns: Netns,
    /// `OutSegs`: segments sent, those sent again not among them.
    pub segments: u64,
}

/// Reads them.
#[derive(Debug)]
pub struct Sent {
    proc: PathBuf,
    own: Option<Netns>,
    /// Others, and a process of each where one is known.
    others: BTreeMap<Netns, Option<PathBuf>>,
    searched: Option<Boottime>,
}

impl Default for Sent {
    fn default() -> Self {
        Self::of(Path::new("/proc"))
    }
}

impl Sent {
    fn of(proc: &Path) -> Self {
        Self {
            own: Netns::at(&proc.join("self")),
            proc: proc.to_owned(),
            others: BTreeMap::new(),
            searched: None,
        }
    }

    /// From now on `netns` is read too, if there is room.
    pub fn want(&mut self, netns: Netns) {
        if Some(netns) != self.own && self.others.len() < NAMESPACES {
            self.others.entry(netns).or_default();
        }
    }

    /// What each namespace has sent: the agent's own, and those in which a process was found. One
    /// that nobody is in any longer is forgotten.
    pub fn read(&mut self, now: Boottime) -> Vec<SentSegments> {
        self.search(now);
        let segments = |process: &Path, netns| {
            let text = fs::read_to_string(process.join("net/snmp")).ok()?;
            let segments = out_segments(&text)?;
            Some(SentSegments { netns, segments })
        };
        let own = self
            .own
            .and_then(|own| segments(&self.proc.join("self"), own));
        let others = self.others.iter_mut().filter_map(|(&netns, process)| {
            let found = process.as_deref().and_then(|process| {
                // Its id may have become another process's.
                let read = segments(process, netns)?;
                (Netns::at(process) == Some(netns)).then_some(read)
            });
            if found.is_none() {
                *process = None;
            }
            found
        });
        own.into_iter().chain(others.collect::<Vec<_>>()).collect()
    }

    fn search(&mut self, now: Boottime) {
        let rested = self
            .searched
            .is_none_or(|searched| now.since(searched) >= SEARCH_EVERY);
        let mut wanted: BTreeSet<Netns> = self
            .others
            .iter()
            .filter(|(_, process)| process.is_none())
            .map(|(&netns, _)| netns)
            .collect();
        if wanted.is_empty() || !rested {
            return;
        }
        self.searched = Some(now);
        for process in processes(&self.proc).take(PROCESSES) {
            if let Some(netns) = Netns::at(&process)
                && wanted.remove(&netns)
            {
                self.others.insert(netns, Some(process));
                if wanted.is_empty() {
                    return;
                }
            }
        }
        self.others.retain(|netns, _| !wanted.contains(netns));
    }
}

fn processes(proc: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(proc).into_iter().flatten().flatten();
    entries
        .filter(|entry| {
            let name = entry.file_name();
            name.as_encoded_bytes().iter().all(u8::is_ascii_digit)
        })
        .map(|entry| entry.path())
}

/// `OutSegs` of the text of a `net/snmp`: the columns are named by the line before.
fn out_segments(text: &str) -> Option<u64> {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("Tcp: "));
    let (names, values) = (lines.next()?, lines.next()?);
    let column = names.split(' ').position(|name| name == "OutSegs")?;
    values.split(' ').nth(column)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_are_read_by_the_name_of_their_column() {
        let text = "Ip: Forwarding\nIp: 1\nTcp: MaxConn OutSegs RetransSegs\nTcp: -1 17 3\n";
        assert_eq!(out_segments(text), Some(17));
        assert_eq!(out_segments("Tcp: MaxConn\nTcp: -1\n"), None);
        assert_eq!(out_segments("Tcp: OutSegs\n"), None);
    }

    #[test]
    fn a_namespace_is_read_through_somebody_in_it_and_forgotten_without() {
        // Under another /proc, so that what is here known as our own has to be found.
        let own = Netns::own().expect("a namespace");
        let mut sent = Sent {
            own: None,
            ..Sent::default()
        };
        sent.want(own);
        let nobodys = Netns(1);
        sent.want(nobodys);
        let read = sent.read(Boottime(0));
        assert!(read.iter().any(|sent| sent.netns == own), "{read:?}");
        assert!(sent.others.contains_key(&own) && !sent.others.contains_key(&nobodys));
        assert_eq!(Sent::default().read(Boottime(0))[0].netns, own);
    }
}
