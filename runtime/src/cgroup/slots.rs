//! The pool of slots: cgroups that are made ahead, claimed fast, and clean each time.

use std::collections::VecDeque;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::clean::{Step, Waiting};
use super::error::{Error, Result};
use super::group::Cgroup;
use super::limits::Limits;
use super::slot::Slot;
use super::subtree::{Name, Subtree};
use crate::id::SlotName;

/// How much a pool may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Slots that are ready; each keeps a file open for each of its limits.
    pub ready: usize,
    /// Bytes that a clean slot may still be charged for.
    pub charge: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            ready: 16,
            // The kernel itself keeps some tens of pages for each processor.
            charge: 2 << 20,
        }
    }
}

/// What became of slots since the pool was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Made.
    pub made: u64,
    /// Claimed from those that were ready.
    pub claimed: u64,
    /// Made while somebody waited, for want of a ready one.
    pub missed: u64,
    /// Found removed by somebody else, in one hierarchy at least.
    pub lost: u64,
    /// Cleaned for another use.
    pub reused: u64,
    /// Given back and deleted, as there were enough.
    pub spare: u64,
    /// Given back and deleted, as they could not be made clean.
    pub unclean: u64,
}

/// Slots of one subtree. Nothing is done behind the owner's back: [`Pool::refill`] and
/// [`Pool::step`] make and clean, off the path of requests; [`Pool::claim`] only writes limits.
#[derive(Debug)]
pub struct Pool {
    subtree: Arc<Subtree>,
    bounds: Bounds,
    ready: VecDeque<Slot>,
    waiting: VecDeque<Waiting>,
    next: u32,
    counts: Counts,
}

impl Pool {
    /// An empty pool.
    #[must_use]
    pub fn new(subtree: Arc<Subtree>, bounds: Bounds) -> Self {
        Self {
            subtree,
            bounds,
            ready: VecDeque::new(),
            waiting: VecDeque::new(),
            next: 1,
            counts: Counts::default(),
        }
    }

    /// How many are ready.
    #[must_use]
    pub fn ready(&self) -> usize {
        self.ready.len()
    }

    /// How many were given back and are not clean yet.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// How many were given back so long ago, and are not clean yet.
    #[must_use]
    pub fn waiting_for(&self, time: Duration) -> usize {
        let is_old = |waiting: &&Waiting| waiting.since.elapsed() >= time;
        self.waiting.iter().filter(is_old).count()
    }

    /// What became of slots.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Gives a clean slot with these limits, read back. One that is ready, or a new one.
    pub fn claim(&mut self, limits: &Limits) -> Result<Slot> {
        loop {
            let mut slot = self.take()?;
            match slot.limit(limits) {
                Ok(()) => return Ok(slot),
                Err(error) => {
                    let is_gone = error.is_gone();
                    // The limits are at fault, not the slot; but some of them may hold.
                    self.give_back(slot);
                    if !is_gone {
                        return Err(error);
                    }
                }
            }
        }
    }

    /// Gives a clean slot whose limits are set later. One that is ready, or a new one.
    pub fn take(&mut self) -> Result<Slot> {
        while let Some(slot) = self.ready.pop_front() {
            if slot.cgroup.is_there() {
                self.counts.claimed += 1;
                return Ok(slot);
            }
            self.lose(slot.cgroup);
        }
        self.counts.missed += 1;
        let cgroup = self.make()?;
        match Slot::prepare(&cgroup) {
            Ok(prepared) => Ok(Slot::new(cgroup, prepared)),
            Err(error) => {
                self.waiting.push_back(Waiting::new(cgroup));
                Err(error)
            }
        }
    }

    /// Takes a slot back. Its processes should be gone; it is not given out again before they are.
    pub fn give_back(&mut self, slot: Slot) {
        if slot.cgroup.is_there() {
            self.waiting.push_back(Waiting::new(slot.cgroup));
        } else {
            self.lose(slot.cgroup);
        }
    }

    /// Takes a cgroup that is none of its slots: whoever is in it is killed, and it is deleted.
    pub fn discard(&mut self, cgroup: Cgroup) {
        let mut waiting = Waiting::new(cgroup);
        waiting.is_spent = true;
        self.waiting.push_back(waiting);
    }

    /// Cleans what was given back and makes what is missing, until `deadline`.
    ///
    /// Slots with processes in them wait for the next time.
    pub fn refill(&mut self, deadline: Instant) -> Result<()> {
        for waiting in &mut self.waiting {
            waiting.due = Instant::now();
            waiting.is_inhabited = false;
        }
        while Instant::now() < deadline {
            if self.step()? {
                continue;
            }
            let mut others = self.waiting.iter();
            let others = others.by_ref().filter(|waiting| !waiting.is_inhabited);
            let Some(due) = others.map(|waiting| waiting.due).min() else {
                break;
            };
            thread::sleep(due.min(deadline).saturating_duration_since(Instant::now()));
        }
        Ok(())
    }

    /// Does one thing that takes no more than some milliseconds: cleans one that was given back a
    /// little, or makes one that is missing. Whether there was anything to do yet.
    pub fn step(&mut self) -> Result<bool> {
        let now = Instant::now();
        if let Some(at) = self.waiting.iter().position(|waiting| waiting.due <= now)
            && let Some(waiting) = self.waiting.remove(at)
        {
            self.take_in(waiting)?;
            return Ok(true);
        }
        if self.is_short() {
            let cgroup = self.make()?;
            self.keep(cgroup)?;
            return Ok(true);
        }
        Ok(false)
    }

    /// Whether there are too few, those that are about to be clean again included.
    fn is_short(&self) -> bool {
        let coming = self.waiting.iter().filter(|waiting| waiting.is_coming());
        self.ready.len() + coming.count() < self.bounds.ready
    }

    /// When there will be something to do for [`Self::step`]; none while nothing is given back.
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        if self.is_short() {
            return Some(Instant::now());
        }
        self.waiting.iter().map(|waiting| waiting.due).min()
    }

    /// Deletes all that it holds; what is claimed is its claimer's.
    pub fn close(mut self, deadline: Instant) -> Result<()> {
        let ready = std::mem::take(&mut self.ready).into_iter();
        let waiting = std::mem::take(&mut self.waiting).into_iter();
        let all = ready
            .map(|slot| slot.cgroup)
            .chain(waiting.map(|waiting| waiting.cgroup));
        // One that cannot be deleted does not keep the others.
        let mut deleted = Ok(());
        for cgroup in all {
            deleted = cgroup.delete(deadline).and(deleted);
        }
        deleted
    }

    fn take_in(&mut self, mut waiting: Waiting) -> Result<()> {
        let counter = match waiting.step(self.bounds.charge) {
            Ok(Step::Later) => {
                self.waiting.push_back(waiting);
                return Ok(());
            }
            Ok(Step::Clean) if !waiting.is_spent && self.ready.len() < self.bounds.ready => {
                self.keep(waiting.cgroup)?;
                self.counts.reused += 1;
                return Ok(());
            }
            Err(error) => {
                waiting.put_off();
                self.waiting.push_back(waiting);
                return Err(error);
            }
            Ok(Step::Clean) => &mut self.counts.spare,
            Ok(Step::Unclean) => &mut self.counts.unclean,
            Ok(Step::Lost) => &mut self.counts.lost,
        };
        if !waiting.is_spent {
            *counter += 1;
        }
        self.delete(waiting)
    }

    fn keep(&mut self, cgroup: Cgroup) -> Result<()> {
        match Slot::prepare(&cgroup) {
            Ok(prepared) => self.ready.push_back(Slot::new(cgroup, prepared)),
            Err(error) => {
                let mut waiting = Waiting::new(cgroup);
                waiting.put_off();
                self.waiting.push_back(waiting);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Processes that are ending hold it for a moment: then it is tried again later.
    fn delete(&mut self, mut waiting: Waiting) -> Result<()> {
        let deleted = waiting.cgroup.delete(Instant::now());
        if deleted.is_err() {
            waiting.is_spent = true;
            waiting.put_off();
            self.waiting.push_back(waiting);
        }
        match deleted {
            Err(Error::Busy { .. }) => Ok(()),
            deleted => deleted,
        }
    }

    /// What is left of it in other hierarchies is removed; that it was lost is what counts.
    fn lose(&mut self, cgroup: Cgroup) {
        self.counts.lost += 1;
        // What keeps it now is seen when it is tried again.
        let _ = self.delete(Waiting::new(cgroup));
    }

    fn make(&mut self) -> Result<Cgroup> {
        loop {
            let name = Name::new(SlotName(self.next).to_string())?;
            self.next += 1;
            match Cgroup::create(&self.subtree, name) {
                // Of a former life; whoever keeps the journal knows what it is.
                Err(error) if error.is(Errno::EXIST) => {}
                Err(error) => return Err(error),
                Ok(cgroup) => {
                    self.counts.made += 1;
                    return Ok(cgroup);
                }
            }
        }
    }
}
