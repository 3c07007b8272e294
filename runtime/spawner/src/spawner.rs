//! The loop: what comes is done at once, what can wait is done one small piece at a time.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use hearth_runtime::cgroup::{Pool, Subtree};
use hearth_runtime::id::SandboxId;
use hearth_runtime::journal::Journal;
use hearth_runtime::sandbox::Places;
use hearth_runtime::sandbox::ask::{Answer, Ask, Ended, Slots};
use hearth_runtime::sandbox::message::Exit;

use crate::claim::Wanted;
use crate::clients::{Asker, Clients};
use crate::collapse::Collapse;
use crate::log::say;
use crate::poll::{Poll, Source};
use crate::sandbox::{Sandbox, State};
use crate::signals::Signals;
use crate::spawn::Program;
use crate::veth::Veth;

/// Work that can wait is done at least so often, however many questions come.
const BACKGROUND: Duration = Duration::from_millis(5);
/// How long parked ones are waited for when we are to stop.
const STOP: Duration = Duration::from_secs(10);
/// To who claims then.
pub(crate) const STOPPING: &str = "hearth-spawner is being stopped";
/// Since when what is to go counts as stuck.
pub(crate) const STUCK: Duration = Duration::from_secs(10);

/// What the spawner looks after.
#[derive(Debug)]
pub(crate) struct Spawner {
    pub(crate) places: Places,
    /// How many are to be parked.
    pub(crate) slots: usize,
    /// Cgroups that it may have at once, by the descriptors and addresses that they take.
    pub(crate) most: usize,
    pub(crate) program: Program,
    /// Where sandboxes have links.
    pub(crate) veth: Option<Veth>,
    pub(crate) poll: Poll,
    pub(crate) signals: Signals,
    pub(crate) journal: Journal,
    pub(crate) subtree: Arc<Subtree>,
    /// Mount points of hierarchies: what is left out where a cgroup is told.
    pub(crate) mounts: Vec<PathBuf>,
    pub(crate) pool: Pool,
    /// By the number of the slot.
    pub(crate) sandboxes: BTreeMap<u32, Sandbox>,
    /// Slots by the id of the sandbox.
    pub(crate) by_id: BTreeMap<SandboxId, u32>,
    /// The one that has waited longest comes first.
    pub(crate) parked: VecDeque<u32>,
    /// The last that ended by themselves, and that nobody has asked about yet.
    pub(crate) ended: VecDeque<Ended>,
    /// Claims that wait until there is a sandbox.
    pub(crate) wanted: VecDeque<Wanted>,
    /// Memory that is to be gathered, one sandbox's after the other.
    pub(crate) collapses: VecDeque<Collapse>,
    pub(crate) trouble: Trouble,
    /// Asked to stop: it does at the latest then.
    pub(crate) stop: Option<Instant>,
    pub(crate) counts: Slots,
}

/// Parking that fails is tried again later and later.
#[derive(Debug, Default)]
pub(crate) struct Trouble {
    pub(crate) until: Option<Instant>,
    pause: Duration,
}

impl Trouble {
    pub(crate) fn begin(&mut self) {
        self.pause = (self.pause * 2).clamp(Duration::from_millis(100), Duration::from_secs(10));
        self.until = Some(Instant::now() + self.pause);
    }

    pub(crate) fn is_over(&self) -> bool {
        self.until.is_none_or(|until| until <= Instant::now())
    }
}

impl Spawner {
    /// Serves until a signal says to stop. What is parked then goes; what is claimed stays.
    pub(crate) fn run(mut self, mut clients: Clients) -> Result<()> {
        let mut last = Instant::now();
        loop {
            let sources = self
                .poll
                .wait(self.patience())
                .context("wait for what comes")?;
            for source in &sources {
                match *source {
                    Source::Listener => clients.accept(&self.poll),
                    Source::Signals => {
                        if self.signals.read() && self.stop.is_none() {
                            self.begin_stop(&mut clients);
                        }
                        self.reap(&mut clients);
                    }
                    Source::Client(number) => {
                        for (asker, ask) in clients.attend(number, &self.poll) {
                            self.answer(asker, ask, &mut clients);
                        }
                    }
                    Source::Adopted(slot) => {
                        self.init_ended(slot, Exit::Unknown, &mut clients);
                    }
                    Source::Control(slot) => self.hear(slot, &mut clients),
                }
            }
            self.tidy_due(&mut clients);
            self.collapse_more(&mut clients);
            if let Some(until) = self.stop {
                let is_done = !self.sandboxes.values().any(Sandbox::is_ending);
                if is_done || until <= Instant::now() {
                    break;
                }
            } else if sources.is_empty() || last.elapsed() > BACKGROUND {
                self.work_ahead(&mut clients);
                last = Instant::now();
            }
        }
        self.finish()
    }

    fn answer(&mut self, asker: Asker, ask: Ask, clients: &mut Clients) {
        let answer = match ask {
            Ask::Claim {
                function,
                resources,
            } => return self.claim(asker, function, &resources, clients),
            Ask::End { sandbox } => return self.end_asked(asker, sandbox, clients),
            Ask::Collapse { sandbox } => return self.collapse(asker, sandbox, clients),
            Ask::List { after } => self.list(after),
            Ask::Slots => Answer::Slots(self.count()),
            Ask::Watch => Answer::Watching,
        };
        clients.answer(asker, answer, &self.poll);
    }

    /// How long there is nothing to do.
    fn patience(&self) -> Option<Duration> {
        if !self.collapses.is_empty() {
            return Some(Duration::ZERO);
        }
        let endings = self.sandboxes.values().filter_map(|one| match &one.state {
            State::Ending(ending) => Some(ending.due),
            State::Parking { until, .. } => Some(*until),
            _ => None,
        });
        let ahead = match self.stop {
            Some(until) => Some(until),
            None => self.due(),
        };
        let due = endings.chain(ahead).min()?;
        Some(due.saturating_duration_since(Instant::now()))
    }

    /// Slots that are in use in any way.
    pub(crate) fn held(&self) -> usize {
        self.sandboxes.len() + self.pool.ready() + self.pool.waiting()
    }

    fn count(&self) -> Slots {
        let of = |is: fn(&State) -> bool| {
            let all = self.sandboxes.values().filter(|one| is(&one.state));
            u32::try_from(all.count()).unwrap_or(u32::MAX)
        };
        let waiting = u32::try_from(self.pool.waiting()).unwrap_or(u32::MAX);
        let stuck = u32::try_from(self.pool.waiting_for(STUCK)).unwrap_or(u32::MAX);
        Slots {
            parked: of(|state| matches!(state, State::Parked { .. })),
            claimed: of(|state| matches!(state, State::Claimed)),
            waiting: of(|state| matches!(state, State::Ending(_))) + waiting,
            stuck: of(
                |state| matches!(state, State::Ending(ending) if ending.since.elapsed() >= STUCK),
            ) + stuck,
            lost: self.pool.counts().lost,
            ..self.counts
        }
    }

    /// Parked ones are of no use to the next spawner, who makes its own.
    fn begin_stop(&mut self, clients: &mut Clients) {
        self.stop = Some(Instant::now() + STOP);
        say!("asked to stop: parked sandboxes go, claimed ones stay");
        let _ = std::fs::remove_file(self.places.spawner());
        self.refuse_all(STOPPING, clients);
        let unclaimed = |one: &&Sandbox| !one.is_ending() && !matches!(one.state, State::Claimed);
        let unclaimed: Vec<u32> = self
            .sandboxes
            .values()
            .filter(unclaimed)
            .map(|one| one.name.0)
            .collect();
        for slot in unclaimed {
            self.end(slot, false);
        }
    }

    fn finish(self) -> Result<()> {
        let stays = self.sandboxes.len();
        self.pool
            .close(Instant::now() + Duration::from_secs(2))
            .context("remove slots; the next start does")?;
        if stays > 0 {
            say!("{stays} sandboxes stay; the next hearth-spawner looks after them");
            return Ok(());
        }
        self.subtree.remove().context("remove the cgroup of slots")
    }
}
