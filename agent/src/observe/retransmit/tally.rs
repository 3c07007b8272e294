//! What was sent again since the last reading.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use hearth_abi::{
    FAMILY_V6, PREFIX_V4_BYTES, PREFIX_V6_BYTES, RETRANSMIT_NAMESPACES, RetransmitKey,
    RetransmitNamespace,
};

use super::Netns;
use crate::kernel::retransmit::RetransmitSnapshot;
use crate::time::{Boottime, Nanos};

/// How long a namespace sends nothing again before its place in the kernel may go to another.
const QUIET: Nanos = Nanos(600_000_000_000);
/// From so many namespaces on, quiet ones go.
const CROWDED: usize = RETRANSMIT_NAMESPACES as usize / 2;

/// A network that segments were sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Destination {
    /// First address of a `/24`.
    V4(Ipv4Addr),
    /// First address of a `/48`.
    V6(Ipv6Addr),
}

impl Destination {
    fn of(key: &RetransmitKey) -> Self {
        if key.family == FAMILY_V6 {
            let mut address = [0; 16];
            address[..PREFIX_V6_BYTES].copy_from_slice(&key.prefix[..PREFIX_V6_BYTES]);
            Self::V6(address.into())
        } else {
            let mut address = [0; 4];
            address[..PREFIX_V4_BYTES].copy_from_slice(&key.prefix[..PREFIX_V4_BYTES]);
            Self::V4(address.into())
        }
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::V4(address) => write!(f, "{address}/{}", PREFIX_V4_BYTES * 8),
            Self::V6(address) => write!(f, "{address}/{}", PREFIX_V6_BYTES * 8),
        }
    }
}

/// Segments that were sent again since the last reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resent {
    /// Network namespace.
    pub netns: Netns,
    /// Whether over IPv6.
    pub v6: bool,
    /// Whose they were, and where to; `None` where the kernel side had to give that up for others.
    pub by: Option<ResentBy>,
    /// How many.
    pub segments: u64,
}

/// Whose segments, and where to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResentBy {
    /// Inode number of the cgroup; `None` where it is not known.
    pub cgroup: Option<u64>,
    /// Network.
    pub destination: Destination,
}

/// What was told of one namespace and family.
#[derive(Debug)]
struct Told {
    segments: u64,
    grown: Boottime,
}

/// Turns totals into what is new, so that what is told of a namespace sums to its total exactly:
/// no row counts before its total does, and what no row has is told without one.
#[derive(Debug, Default)]
pub struct Tally {
    rows: HashMap<RetransmitKey, u64>,
    told: BTreeMap<RetransmitNamespace, Told>,
}

impl Tally {
    /// What is new in `snapshot`.
    pub fn take(&mut self, snapshot: &RetransmitSnapshot, now: Boottime) -> Vec<Resent> {
        let mut left: BTreeMap<RetransmitNamespace, u64> = BTreeMap::new();
        for (&namespace, &total) in &snapshot.totals {
            let told = self.told.entry(namespace).or_insert(Told {
                segments: 0,
                grown: now,
            });
            // Smaller after it was forgotten and has begun again.
            let new = total.checked_sub(told.segments).unwrap_or(total);
            if new > 0 {
                *told = Told {
                    segments: total,
                    grown: now,
                };
                left.insert(namespace, new);
            }
        }
        let mut new = self.rows(snapshot, &mut left);
        let rest = left.into_iter().filter(|&(_, segments)| segments > 0);
        new.extend(rest.map(|(namespace, segments)| without_row(namespace, segments)));
        new
    }

    fn rows(
        &mut self,
        snapshot: &RetransmitSnapshot,
        left: &mut BTreeMap<RetransmitNamespace, u64>,
    ) -> Vec<Resent> {
        let mut rows = HashMap::with_capacity(snapshot.rows.len());
        let mut new = Vec::new();
        for (&key, &count) in &snapshot.rows {
            // Smaller after it was evicted and has begun again.
            let before = self.rows.get(&key).copied().filter(|&told| told <= count);
            let before = before.unwrap_or(0);
            let Some(left) = left.get_mut(&namespace_of(&key)) else {
                rows.insert(key, before);
                continue;
            };
            let segments = (count - before).min(*left);
            *left -= segments;
            rows.insert(key, before + segments);
            if segments > 0 {
                new.push(Resent {
                    netns: Netns(key.netns),
                    v6: key.family == FAMILY_V6,
                    by: Some(ResentBy {
                        cgroup: (key.cgroup != 0).then_some(key.cgroup),
                        destination: Destination::of(&key),
                    }),
                    segments,
                });
            }
        }
        self.rows = rows;
        new
    }

    /// Namespaces whose places in the kernel others need more.
    #[must_use]
    pub fn quiet(&self, now: Boottime) -> Vec<RetransmitNamespace> {
        if self.told.len() < CROWDED {
            return Vec::new();
        }
        self.told
            .iter()
            .filter(|(_, told)| now.since(told.grown) >= QUIET)
            .map(|(&namespace, _)| namespace)
            .collect()
    }

    /// Forgets namespaces that have no place in the kernel any longer, and returns what they had
    /// sent again since the last reading, by what each had in the end. Their rows stay, and have
    /// been told up to here: else they would take what others send again later.
    pub fn forget(&mut self, gone: &RetransmitSnapshot) -> Vec<Resent> {
        let of_gone = |key: &RetransmitKey| gone.totals.contains_key(&namespace_of(key));
        self.rows
            .extend(gone.rows.iter().filter(|(key, _)| of_gone(key)));
        let rest = gone.totals.iter().filter_map(|(namespace, total)| {
            let told = self.told.remove(namespace)?;
            let segments = total.checked_sub(told.segments).filter(|&new| new > 0)?;
            Some(without_row(*namespace, segments))
        });
        rest.collect()
    }
}

const fn namespace_of(key: &RetransmitKey) -> RetransmitNamespace {
    RetransmitNamespace {
        netns: key.netns,
        family: key.family,
        padding: 0,
    }
}

fn without_row(namespace: RetransmitNamespace, segments: u64) -> Resent {
    Resent {
        netns: Netns(namespace.netns),
        v6: namespace.family == FAMILY_V6,
        by: None,
        segments,
    }
}

#[cfg(test)]
mod tests {
    use hearth_abi::FAMILY_V4;

    use super::*;

    fn key(netns: u32, cgroup: u64, last: u8) -> RetransmitKey {
        RetransmitKey {
            cgroup,
            prefix: [10, 0, last, 0, 0, 0, 0, 0],
            netns,
            family: FAMILY_V4,
            padding: 0,
        }
    }

    fn snapshot(total: u64, rows: &[(RetransmitKey, u64)]) -> RetransmitSnapshot {
        let namespace = RetransmitNamespace {
            netns: 7,
            family: FAMILY_V4,
            padding: 0,
        };
        RetransmitSnapshot {
            totals: [(namespace, total)].into(),
            rows: rows.iter().copied().collect(),
        }
    }

    /// Segments by cgroup; 0 of what has no row.
    fn told(tally: &mut Tally, snapshot: &RetransmitSnapshot) -> Vec<(u64, u64)> {
        let new = tally.take(snapshot, Boottime(0)).into_iter();
        new.map(|new| {
            let cgroup = new.by.and_then(|by| by.cgroup).unwrap_or(0);
            (cgroup, new.segments)
        })
        .collect()
    }

    #[test]
    fn only_what_is_new_is_told() {
        let mut tally = Tally::default();
        let (a, b) = (key(7, 1, 1), key(7, 2, 1));
        assert_eq!(told(&mut tally, &snapshot(3, &[(a, 3)])), [(1, 3)]);
        let second = snapshot(8, &[(a, 4), (b, 4)]);
        assert_eq!(told(&mut tally, &second), [(1, 1), (2, 4)]);
        assert_eq!(told(&mut tally, &second), []);
    }

    #[test]
    fn what_was_evicted_is_told_without_a_row_and_nothing_twice() {
        let mut tally = Tally::default();
        let (a, b) = (key(7, 1, 1), key(7, 2, 1));
        assert_eq!(told(&mut tally, &snapshot(5, &[(a, 5)])), [(1, 5)]);
        // Two more of a, then a is evicted, then four of b.
        let evicted = snapshot(11, &[(b, 4)]);
        assert_eq!(told(&mut tally, &evicted), [(2, 4), (0, 2)]);
        // One of a again.
        let again = snapshot(12, &[(a, 1), (b, 4)]);
        assert_eq!(told(&mut tally, &again), [(1, 1)]);
    }

    #[test]
    fn a_row_that_is_ahead_of_its_total_waits_for_it() {
        let mut tally = Tally::default();
        let a = key(7, 1, 1);
        assert_eq!(told(&mut tally, &snapshot(2, &[(a, 5)])), [(1, 2)]);
        assert_eq!(told(&mut tally, &snapshot(5, &[(a, 5)])), [(1, 3)]);
        // A row whose namespace has no place of its own is not told by itself.
        let other = snapshot(5, &[(a, 5), (key(8, 1, 1), 9)]);
        assert_eq!(told(&mut tally, &other), []);
    }

    #[test]
    fn a_namespace_that_began_again_counts_from_zero() {
        let mut tally = Tally::default();
        let a = key(7, 1, 1);
        assert_eq!(told(&mut tally, &snapshot(9, &[(a, 9)])), [(1, 9)]);
        assert_eq!(told(&mut tally, &snapshot(2, &[(a, 11)])), [(1, 2)]);
    }

    #[test]
    fn quiet_namespaces_go_only_when_it_is_crowded() {
        let mut tally = Tally::default();
        tally.take(&snapshot(1, &[]), Boottime(0));
        assert!(tally.quiet(Boottime(QUIET.0)).is_empty());
        for netns in 100..100 + u32::try_from(CROWDED).expect("small") {
            let namespace = RetransmitNamespace {
                netns,
                family: FAMILY_V4,
                padding: 0,
            };
            let totals = [(namespace, 1)].into();
            let rows = BTreeMap::new();
            tally.take(&RetransmitSnapshot { totals, rows }, Boottime(1));
        }
        let quiet = tally.quiet(Boottime(QUIET.0));
        assert_eq!(quiet.len(), 1);
        assert_eq!(quiet[0].netns, 7);
    }

    #[test]
    fn what_is_counted_between_the_last_reading_and_the_removal_is_told() {
        let mut tally = Tally::default();
        let a = key(7, 1, 1);
        assert_eq!(told(&mut tally, &snapshot(9, &[(a, 9)])), [(1, 9)]);
        // Four more, before its place was taken.
        let gone = snapshot(13, &[(a, 13)]);
        let left: Vec<_> = tally.forget(&gone).iter().map(|new| new.segments).collect();
        assert_eq!(left, [4]);
        assert_eq!(tally.forget(&gone), []);
        // It begins again, and so does what is told.
        assert_eq!(told(&mut tally, &snapshot(2, &[(a, 15)])), [(1, 2)]);
    }

    #[test]
    fn what_was_told_at_the_removal_is_not_taken_from_another_row_later() {
        let mut tally = Tally::default();
        let (a, b, other) = (key(7, 1, 1), key(7, 2, 1), key(8, 3, 1));
        assert_eq!(told(&mut tally, &snapshot(9, &[(a, 9)])), [(1, 9)]);
        tally.forget(&snapshot(13, &[(a, 13), (other, 5)]));
        assert_eq!(
            told(&mut tally, &snapshot(3, &[(a, 13), (b, 3)])),
            [(2, 3)],
            "nothing of it was a's"
        );
        // Rows of namespaces that stay are told as ever.
        let totals = [(namespace_of(&other), 5)].into();
        let rows = [(other, 5)].into();
        let other = RetransmitSnapshot { totals, rows };
        assert_eq!(told(&mut tally, &other), [(3, 5)]);
    }

    #[test]
    fn destinations_are_networks() {
        let mut six = key(7, 1, 1);
        six.family = FAMILY_V6;
        six.prefix = [0x20, 1, 0xd, 0xb8, 0, 5, 0, 0];
        let shown = [key(7, 1, 9), six].map(|key| Destination::of(&key).to_string());
        assert_eq!(shown, ["10.0.9.0/24", "2001:db8:5::/48"]);
    }
}
