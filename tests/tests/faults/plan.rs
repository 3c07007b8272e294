//! Which faults, and when: by the seed alone.

use std::collections::BTreeMap;
use std::time::Duration;

use hearth_tests::seed::Seed;

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    /// A function takes more memory than it may have.
    Oom,
    /// It ends in the middle of a request.
    Exit,
    /// It does not answer any more, nor ends when asked to.
    Hang,
    /// It starts as many processes as it can.
    ForkBomb,
    /// It writes as much as it can.
    Fill,
    /// Its process is killed.
    KillFunction,
    /// Its process is stopped.
    StopFunction,
    /// The first process of its sandbox is killed.
    KillInit,
    /// The spawner is killed, and another one begins.
    KillSpawner,
    /// The agent is killed, and another one begins.
    KillAgent,
    /// Both.
    KillBoth,
    /// There is no room for what the agent writes down; after a while there is.
    FullDisk,
    /// The clock of the day is set; where it is ours.
    Clock,
}

/// Each with its share.
const SHARES: [(Fault, u64); 13] = [
    (Fault::Oom, 14),
    (Fault::Exit, 12),
    (Fault::Hang, 6),
    (Fault::ForkBomb, 6),
    (Fault::Fill, 6),
    (Fault::KillFunction, 18),
    (Fault::StopFunction, 5),
    (Fault::KillInit, 14),
    (Fault::KillSpawner, 6),
    (Fault::KillAgent, 4),
    (Fault::KillBoth, 2),
    (Fault::FullDisk, 4),
    (Fault::Clock, 3),
];

/// The longest time between two.
const PAUSE: Duration = Duration::from_millis(500);

/// One fault after the other.
pub(crate) struct Plan {
    pub(crate) seed: Seed,
    counts: BTreeMap<Fault, u32>,
}

impl Plan {
    pub(crate) const fn new(seed: Seed) -> Self {
        Self {
            seed,
            counts: BTreeMap::new(),
        }
    }

    /// The next one, and how long nothing else happens after it.
    pub(crate) fn next(&mut self) -> (Fault, Duration) {
        let all = SHARES.iter().map(|(_, share)| share).sum();
        let mut at = self.seed.below(all);
        let mut fault = Fault::KillFunction;
        for (one, share) in SHARES {
            if at < share {
                fault = one;
                break;
            }
            at -= share;
        }
        *self.counts.entry(fault).or_default() += 1;
        (fault, self.seed.between(Duration::ZERO, PAUSE))
    }

    /// How many of each there were.
    pub(crate) fn told(&self) -> String {
        let counts = self.counts.iter();
        let counts = counts.map(|(fault, count)| format!("{fault:?} {count}"));
        counts.collect::<Vec<_>>().join(", ")
    }
}
