//! Reads what the `retransmit` signal has counted.

use std::collections::BTreeMap;
use std::os::fd::{AsFd as _, OwnedFd};

use aya::{
    Ebpf, Pod,
    maps::{Map, MapData, MapError, PerCpuArray, PerCpuHashMap, PerCpuValues},
};
use hearth_abi::{RETRANSMIT_NAMESPACES, RETRANSMIT_ROWS, RetransmitKey, RetransmitNamespace};

use super::probes::{ProbesError, map};
use super::take_out::take_out;

const ROWS: &str = "RETRANSMITS";
const TOTALS: &str = "RETRANSMIT_TOTALS";
const NODE: &str = "RETRANSMIT_NODE";

/// The maps of the signal.
pub(super) struct Retransmits {
    rows: PerCpuHashMap<MapData, RetransmitKey, u64>,
    totals: PerCpuHashMap<MapData, RetransmitNamespace, u64>,
    /// The same map, for what aya has no call for.
    totals_fd: OwnedFd,
    node: PerCpuArray<MapData, u64>,
    read: Option<[u64; 2]>,
}

/// Segments sent again since the probes were attached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RetransmitSnapshot {
    /// By namespace and family: all of them.
    pub totals: BTreeMap<RetransmitNamespace, u64>,
    /// By who and where to, where that was not evicted; read after the totals, so that these miss
    /// nothing of what the totals have but what was evicted.
    pub rows: BTreeMap<RetransmitKey, u64>,
}

impl Retransmits {
    /// Takes the maps; after the programs were loaded.
    pub(super) fn start(ebpf: &mut Ebpf) -> Result<Self, ProbesError> {
        let totals_fd = ebpf
            .map(TOTALS)
            .and_then(fd)
            .ok_or(ProbesError::NoMap(TOTALS))?;
        Ok(Self {
            totals_fd,
            rows: map(ebpf, ROWS)?,
            totals: map(ebpf, TOTALS)?,
            node: map(ebpf, NODE)?,
            read: None,
        })
    }

    /// What was counted; `None` if that is what was read last.
    pub(super) fn read(&mut self) -> Result<Option<RetransmitSnapshot>, ProbesError> {
        let failed = |name| move |error| ProbesError::Map(name, Box::new(error));
        let node = self.node().map_err(failed(NODE))?;
        if self.read == Some(node) {
            return Ok(None);
        }
        let totals = all(&self.totals, RETRANSMIT_NAMESPACES).map_err(failed(TOTALS))?;
        let rows = all(&self.rows, RETRANSMIT_ROWS).map_err(failed(ROWS))?;
        // Before the others: what was counted meanwhile makes for another reading.
        self.read = Some(node);
        Ok(Some(RetransmitSnapshot { totals, rows }))
    }

    /// Makes room where namespaces were quiet for long, and returns what each had counted in the
    /// end, and the rows of all after that. What one of them counts from now on begins at zero,
    /// but its rows go on.
    pub(super) fn forget(&mut self, namespaces: &[RetransmitNamespace]) -> RetransmitSnapshot {
        let forgotten = namespaces.iter().filter_map(|namespace| {
            // One that could not be taken out stays, and is asked for again.
            let total = take_out(self.totals_fd.as_fd(), namespace).ok()?;
            Some((*namespace, total))
        });
        let totals: BTreeMap<_, _> = forgotten.collect();
        let mut rows = BTreeMap::new();
        if !totals.is_empty() {
            // The totals are gone from the map, and are told in any case.
            rows = all(&self.rows, RETRANSMIT_ROWS).unwrap_or_default();
        }
        RetransmitSnapshot { totals, rows }
    }

    fn node(&self) -> Result<[u64; 2], MapError> {
        Ok([sum(&self.node.get(&0, 0)?), sum(&self.node.get(&1, 0)?)])
    }
}

fn fd(map: &Map) -> Option<OwnedFd> {
    match map {
        Map::PerCpuHashMap(data) => data.fd().as_fd().try_clone_to_owned().ok(),
        _ => None,
    }
}

/// Every entry, once. While entries are evicted a walk may begin again: it ends after twice the
/// entries there can be, and what it missed is in the next one.
fn all<K: Pod + Ord>(
    map: &PerCpuHashMap<MapData, K, u64>,
    entries: u32,
) -> Result<BTreeMap<K, u64>, MapError> {
    map.iter()
        .take(2 * entries as usize)
        .map(|entry| entry.map(|(key, values)| (key, sum(&values))))
        .collect()
}

fn sum(values: &PerCpuValues<u64>) -> u64 {
    values.iter().sum()
}
