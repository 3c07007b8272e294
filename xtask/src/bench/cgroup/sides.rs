//! What is compared: one operation each, and what goes before and after it untimed.

use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use hearth_runtime::cgroup::{Bounds, Pool, Slot};

use super::node::{HOME, Node};
use super::phase::{self, Times};
use super::plain::Plain;
use crate::bench::parked::Parked;

/// How long it takes until cgroups that are gone no longer bother those that are there.
const SETTLE: Duration = Duration::from_millis(100);

/// How long a pool may take to be filled.
const PATIENCE: Duration = Duration::from_mins(1);

/// One way to give a process a cgroup with limits.
pub(super) trait Side {
    /// As a peer it is called so.
    const NAME: &'static str;

    /// Does it so often in every thread.
    fn measure(&mut self, turns: usize) -> Result<Times>;
}

/// Slots of one owner, and the processes that are parked in them.
struct Slots<'a> {
    node: &'a Node,
    pool: Pool,
    taken: Vec<Slot>,
    parked: Parked,
}

impl<'a> Slots<'a> {
    fn new(node: &'a Node, count: usize) -> Result<Self> {
        let bounds = Bounds {
            ready: count,
            ..Bounds::default()
        };
        Ok(Self {
            node,
            pool: Pool::new(node.subtree.clone(), bounds),
            taken: Vec::new(),
            parked: node.park(count)?,
        })
    }

    /// Parks a process in every slot.
    fn park(&mut self) -> Result<()> {
        let count = self.parked.pids().len();
        self.pool.refill(Instant::now() + PATIENCE)?;
        let ready = self.pool.ready();
        ensure!(ready == count, "only {ready} of {count} slots are ready");
        for &pid in self.parked.pids() {
            let slot = self.pool.take()?;
            slot.cgroup.attach(pid)?;
            self.taken.push(slot);
        }
        Ok(())
    }

    /// What is on the path of a request.
    fn claim(&mut self, turn: usize) -> Result<()> {
        let slot = self.taken.get_mut(turn).context("all slots are claimed")?;
        Ok(slot.limit(&self.node.limits)?)
    }

    /// Empties the slots and gives them back.
    fn empty(&mut self) -> Result<()> {
        for (slot, &pid) in self.taken.drain(..).zip(self.parked.pids()) {
            self.node.plain.attach(HOME, pid)?;
            self.pool.give_back(slot);
        }
        Ok(())
    }
}

/// A slot that is ready gets its limits; every thread has its own.
pub(super) struct Claim<'a>(Vec<Slots<'a>>);

impl<'a> Claim<'a> {
    pub(super) fn new(node: &'a Node, threads: usize, turns: usize) -> Result<Self> {
        let slots = (0..threads).map(|_| Slots::new(node, turns));
        Ok(Self(slots.collect::<Result<_>>()?))
    }

    /// How long making one ready again takes, and of how many that was measured.
    pub(super) fn refill(&mut self) -> Result<(Duration, u32)> {
        let (mut took, mut count) = (Duration::ZERO, 0);
        for slots in &mut self.0 {
            slots.park()?;
            for turn in 0..slots.taken.len() {
                slots.claim(turn)?;
            }
            slots.empty()?;
            let before = slots.pool.counts();
            let begin = Instant::now();
            slots.pool.refill(begin + PATIENCE)?;
            took += begin.elapsed();
            let after = slots.pool.counts();
            count += u32::try_from(after.made + after.reused - before.made - before.reused)?;
        }
        Ok((took / count.max(1), count))
    }
}

impl Side for Claim<'_> {
    const NAME: &'static str = "claim";

    fn measure(&mut self, turns: usize) -> Result<Times> {
        self.0.iter_mut().try_for_each(Slots::park)?;
        thread::sleep(SETTLE);
        let works = self.0.iter_mut().map(|slots| |turn| slots.claim(turn));
        let times = phase::run(works, turns)?;
        self.0.iter_mut().try_for_each(Slots::empty)?;
        Ok(times)
    }
}

/// The same by one thread, which the others ask.
pub(super) struct ClaimByOne<'a> {
    slots: Slots<'a>,
    threads: usize,
}

impl<'a> ClaimByOne<'a> {
    pub(super) fn new(node: &'a Node, threads: usize, turns: usize) -> Result<Self> {
        Ok(Self {
            slots: Slots::new(node, threads * turns)?,
            threads,
        })
    }
}

impl Side for ClaimByOne<'_> {
    const NAME: &'static str = "claim by one";

    fn measure(&mut self, turns: usize) -> Result<Times> {
        self.slots.park()?;
        thread::sleep(SETTLE);
        let slots = &mut self.slots;
        let (asks, asked) = mpsc::channel::<Sender<Result<()>>>();
        let times = thread::scope(|scope| {
            scope.spawn(move || {
                for (turn, answer) in asked.iter().enumerate() {
                    // Who asked is gone only where another thread has failed.
                    let _ = answer.send(slots.claim(turn));
                }
            });
            let works = (0..self.threads).map(|_| {
                let asks = asks.clone();
                let (answer, answers) = mpsc::channel();
                move |_| {
                    let gone = |_| anyhow!("the one who claims is gone");
                    asks.send(answer.clone())
                        .map_err(|_| anyhow!("the one who claims is gone"))?;
                    answers.recv().map_err(gone)?
                }
            });
            let works: Vec<_> = works.collect();
            // Its end is that of the last who may ask.
            drop(asks);
            phase::run(works, turns)
        })?;
        self.slots.empty()?;
        Ok(times)
    }
}

/// A cgroup that is made when it is asked for.
pub(super) struct Mkdir<'a>(Fresh<'a>);

impl<'a> Mkdir<'a> {
    pub(super) fn new(node: &'a Node, threads: usize, turns: usize) -> Result<Self> {
        Ok(Self(Fresh::new(node, threads, turns)?))
    }
}

impl Side for Mkdir<'_> {
    const NAME: &'static str = "mkdir+configure+attach";

    fn measure(&mut self, turns: usize) -> Result<Times> {
        let plain = &self.0.node.plain;
        self.0.measure(turns, |name, pid| {
            plain.make(name)?;
            plain.configure(name)?;
            plain.attach(name, pid)
        })
    }
}

/// A cgroup that was made ahead, and is renamed when it is asked for.
pub(super) struct Rename<'a> {
    fresh: Fresh<'a>,
    plain: Plain,
}

impl<'a> Rename<'a> {
    /// In these hierarchies.
    pub(super) fn new(node: &'a Node, plain: Plain, threads: usize, turns: usize) -> Result<Self> {
        let fresh = Fresh::new(node, threads, turns)?;
        Ok(Self { fresh, plain })
    }
}

impl Side for Rename<'_> {
    const NAME: &'static str = "rename+configure+attach";

    fn measure(&mut self, turns: usize) -> Result<Times> {
        let pooled = |name: &str| format!("pooled-{name}");
        for thread in 0..self.fresh.threads {
            for turn in 0..turns {
                self.plain.make(&pooled(&Fresh::name(thread, turn)))?;
            }
        }
        self.fresh.measure(turns, |name, pid| {
            self.plain.rename(&pooled(name), name)?;
            self.plain.configure(name)?;
            self.plain.attach(name, pid)
        })
    }
}

/// Cgroups that are removed after each measurement, and the processes for them.
struct Fresh<'a> {
    node: &'a Node,
    parked: Parked,
    threads: usize,
}

impl<'a> Fresh<'a> {
    fn new(node: &'a Node, threads: usize, turns: usize) -> Result<Self> {
        Ok(Self {
            node,
            parked: node.park(threads * turns)?,
            threads,
        })
    }

    fn name(thread: usize, turn: usize) -> String {
        format!("fresh-{thread}-{turn}")
    }

    fn measure(&self, turns: usize, put: impl Fn(&str, i32) -> Result<()> + Sync) -> Result<Times> {
        let pids = self.parked.pids();
        thread::sleep(SETTLE);
        let works = pids.chunks(turns).enumerate().map(|(thread, pids)| {
            let put = &put;
            move |turn: usize| {
                let pid = *pids.get(turn).context("all processes are in a cgroup")?;
                put(&Self::name(thread, turn), pid)
            }
        });
        let times = phase::run(works, turns)?;
        for (thread, pids) in pids.chunks(turns).enumerate() {
            for (turn, &pid) in pids.iter().enumerate() {
                self.node.plain.attach(HOME, pid)?;
                self.node.plain.remove(&Self::name(thread, turn))?;
            }
        }
        Ok(times)
    }
}
