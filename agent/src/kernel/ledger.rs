//! The ledger: what became of everything that the probes saw.

use aya::maps::{MapData, MapError, PerCpuArray};
use hearth_abi::{FATES, Fate, LedgerRow, Probe};

/// One probe's counts, over all CPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LedgerLine {
    /// Probe.
    pub probe: Probe,
    /// Counts by [`Fate`].
    pub counts: [u64; FATES],
}

impl LedgerLine {
    /// Count of one fate.
    #[must_use]
    pub fn count(&self, fate: Fate) -> u64 {
        self.counts[fate as usize]
    }

    /// What was seen minus what is accounted for: zero, but for hits under way on other CPUs
    /// at the moment of reading.
    #[must_use]
    pub fn imbalance(&self) -> i64 {
        let others: u64 = self.counts[Fate::Seen as usize + 1..].iter().sum();
        let (seen, others) = (self.count(Fate::Seen), others);
        if seen >= others {
            i64::try_from(seen - others).unwrap_or(i64::MAX)
        } else {
            -i64::try_from(others - seen).unwrap_or(i64::MAX)
        }
    }

    /// What was lost, for whatever reason.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.count(Fate::DroppedRing) + self.count(Fate::DroppedMap) + self.count(Fate::DroppedRead)
    }
}

/// Reads every line.
pub fn read(map: &PerCpuArray<MapData, LedgerRow>) -> Result<Vec<LedgerLine>, MapError> {
    Probe::ALL
        .into_iter()
        .map(|probe| {
            let mut counts = [0; FATES];
            for row in map.get(&(probe as u32), 0)?.iter() {
                for (total, count) in counts.iter_mut().zip(row.counts) {
                    *total += count;
                }
            }
            Ok(LedgerLine { probe, counts })
        })
        .collect()
}
