//! Which faults, and when: by the seed alone.

use std::collections::BTreeMap;
use std::time::Duration;

use hearth_tests::machine;
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
    /// The first process of its sandbox is stopped.
    StopInit,
    /// The clock of the day is set: only where the machine is the test's own.
    Clock,
}

/// Each with its share.
const SHARES: [(Fault, u64); 14] = [
    (Fault::Oom, 14),
    (Fault::Exit, 12),
    (Fault::Hang, 6),
    (Fault::ForkBomb, 6),
    (Fault::Fill, 6),
    (Fault::KillFunction, 18),
    (Fault::StopFunction, 5),
    (Fault::KillInit, 14),
    (Fault::StopInit, 4),
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
    shares: Vec<(Fault, u64)>,
    /// Those that were not yet.
    new: Vec<Fault>,
    counts: BTreeMap<Fault, u32>,
}

impl Plan {
    pub(crate) fn new(seed: Seed) -> Self {
        let is_here = |fault| fault != Fault::Clock || machine::is_emulated();
        let shares = SHARES.into_iter().filter(|(fault, _)| is_here(*fault));
        let shares: Vec<_> = shares.collect();
        Self {
            seed,
            new: shares.iter().map(|(fault, _)| *fault).collect(),
            shares,
            counts: BTreeMap::new(),
        }
    }

    /// The next one, and how long nothing else happens after it. Each is dealt once before any is
    /// again.
    pub(crate) fn next(&mut self) -> (Fault, Duration) {
        let fault = if self.new.is_empty() {
            self.by_share()
        } else {
            let index = self.seed.below(self.new.len() as u64);
            self.new.swap_remove(usize::try_from(index).unwrap_or(0))
        };
        *self.counts.entry(fault).or_default() += 1;
        (fault, self.seed.between(Duration::ZERO, PAUSE))
    }

    fn by_share(&mut self) -> Fault {
        let all = self.shares.iter().map(|(_, share)| share).sum();
        let mut at = self.seed.below(all);
        for (fault, share) in &self.shares {
            if at < *share {
                return *fault;
            }
            at -= share;
        }
        Fault::KillFunction
    }

    /// How many of each there were.
    pub(crate) fn told(&self) -> String {
        let counts = self.counts.iter();
        let counts = counts.map(|(fault, count)| format!("{fault:?} {count}"));
        counts.collect::<Vec<_>>().join(", ")
    }
}
