//! The pool of slots: cgroups that are made ahead, claimed fast, and clean each time.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use rustix::io::Errno;

use super::apply::Files;
use super::error::{Error, Result};
use super::group::Cgroup;
use super::limits::{Limits, Report};
use super::subtree::{Name, Subtree};
use super::usage::Usage;
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
    /// Found removed by somebody else.
    pub lost: u64,
    /// Cleaned for another use.
    pub reused: u64,
    /// Given back and deleted, as there were enough.
    pub spare: u64,
    /// Given back and deleted, as they could not be made clean.
    pub unclean: u64,
}

/// A claimed slot: a cgroup, and where its counters stood when it was clean.
#[derive(Debug)]
pub struct Slot {
    /// The cgroup.
    pub cgroup: Cgroup,
    /// What became of the limits.
    pub limits: Report,
    before: Usage,
}

impl Slot {
    /// What has been used since it was claimed.
    pub fn usage(&self) -> Result<Usage> {
        Ok(self.cgroup.usage()?.since(&self.before))
    }
}

/// Clean, with its files of limits open.
#[derive(Debug)]
struct Ready {
    cgroup: Cgroup,
    files: Files,
    before: Usage,
}

/// Slots of one subtree. Nothing is done behind the owner's back: [`Pool::refill`] makes and
/// cleans, off the path of requests; [`Pool::claim`] only writes limits.
#[derive(Debug)]
pub struct Pool {
    subtree: Arc<Subtree>,
    bounds: Bounds,
    ready: VecDeque<Ready>,
    waiting: VecDeque<Cgroup>,
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

    /// What became of slots.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Gives a clean slot with these limits, read back. One that is ready, or a new one.
    pub fn claim(&mut self, limits: &Limits) -> Result<Slot> {
        while let Some(mut ready) = self.ready.pop_front() {
            if !ready.cgroup.is_there() {
                self.lose(&ready.cgroup);
                continue;
            }
            match ready.cgroup.apply_through(limits, &mut ready.files) {
                Err(error) if error.is_gone() => self.lose(&ready.cgroup),
                Err(error) => {
                    // The limits are at fault, not the slot; but some of them may hold.
                    self.waiting.push_back(ready.cgroup);
                    return Err(error);
                }
                Ok(report) => {
                    self.counts.claimed += 1;
                    return Ok(Slot {
                        cgroup: ready.cgroup,
                        limits: report,
                        before: ready.before,
                    });
                }
            }
        }
        self.counts.missed += 1;
        let cgroup = self.make()?;
        let prepared = cgroup
            .usage()
            .and_then(|before| Ok((before, cgroup.apply(limits)?)));
        match prepared {
            Ok((before, limits)) => Ok(Slot {
                cgroup,
                limits,
                before,
            }),
            Err(error) => {
                self.waiting.push_back(cgroup);
                Err(error)
            }
        }
    }

    /// Takes a slot back. Its processes should be gone; it is not given out again before they are.
    pub fn give_back(&mut self, slot: Slot) {
        self.waiting.push_back(slot.cgroup);
    }

    /// Cleans what was given back and makes what is missing, until `deadline`.
    ///
    /// Slots with processes in them wait for the next time.
    pub fn refill(&mut self, deadline: Instant) -> Result<()> {
        for _ in 0..self.waiting.len() {
            if Instant::now() > deadline {
                return Ok(());
            }
            let Some(cgroup) = self.waiting.pop_front() else {
                break;
            };
            self.take_in(cgroup, deadline)?;
        }
        while self.ready.len() < self.bounds.ready && Instant::now() < deadline {
            let cgroup = self.make()?;
            self.keep(cgroup)?;
        }
        Ok(())
    }

    /// Deletes all that it holds; what is claimed is its claimer's.
    pub fn close(mut self, deadline: Instant) -> Result<()> {
        let ready = std::mem::take(&mut self.ready);
        let ready = ready.into_iter().map(|ready| ready.cgroup);
        let waiting = std::mem::take(&mut self.waiting);
        // One that cannot be deleted does not keep the others.
        let mut deleted = Ok(());
        for cgroup in ready.chain(waiting) {
            deleted = cgroup.delete(deadline).and(deleted);
        }
        deleted
    }

    fn take_in(&mut self, cgroup: Cgroup, deadline: Instant) -> Result<()> {
        if !cgroup.is_there() {
            self.lose(&cgroup);
            return Ok(());
        }
        let populated = match cgroup.is_populated() {
            Err(error) if error.is_gone() => {
                self.lose(&cgroup);
                return Ok(());
            }
            populated => populated,
        };
        if !matches!(populated, Ok(false)) {
            self.waiting.push_back(cgroup);
            return populated.map(|_| ());
        }
        // A spare one is cleaned too: page cache would keep it in the kernel after its end.
        match clean(&cgroup, self.bounds.charge, deadline) {
            Err(error) if error.is_gone() => self.lose(&cgroup),
            Ok(true) if self.ready.len() >= self.bounds.ready => {
                self.delete(cgroup, deadline)?;
                self.counts.spare += 1;
            }
            Ok(true) => {
                self.keep(cgroup)?;
                self.counts.reused += 1;
            }
            Ok(false) | Err(_) => {
                self.delete(cgroup, deadline)?;
                self.counts.unclean += 1;
            }
        }
        Ok(())
    }

    fn keep(&mut self, cgroup: Cgroup) -> Result<()> {
        match prepare(&cgroup) {
            Ok((files, before)) => self.ready.push_back(Ready {
                cgroup,
                files,
                before,
            }),
            Err(error) => {
                self.waiting.push_back(cgroup);
                return Err(error);
            }
        }
        Ok(())
    }

    fn delete(&mut self, cgroup: Cgroup, deadline: Instant) -> Result<()> {
        let deleted = cgroup.delete(deadline);
        if deleted.is_err() {
            self.waiting.push_back(cgroup);
        }
        deleted
    }

    /// What is left of it in other hierarchies is removed; that it was lost is what counts.
    fn lose(&mut self, cgroup: &Cgroup) {
        self.counts.lost += 1;
        let _ = cgroup.delete(Instant::now());
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

/// Opens and reads all that a claim shall not wait for.
fn prepare(cgroup: &Cgroup) -> Result<(Files, Usage)> {
    Ok((Files::open(cgroup)?, cgroup.usage()?))
}

/// Makes an empty cgroup as good as new; whether it is.
fn clean(cgroup: &Cgroup, bound: u64, deadline: Instant) -> Result<bool> {
    if cgroup.is_altered()? {
        return Ok(false);
    }
    match cgroup.thaw() {
        // Where nothing can be frozen nothing is.
        Err(Error::Unsupported { .. }) => {}
        thawed => thawed?,
    }
    let charge = cgroup.reclaim(bound, deadline)?;
    cgroup.reset(&mut Files::default())?;
    cgroup.forget_peak()?;
    Ok(charge.is_none_or(|charge| charge <= bound) && !cgroup.is_populated()?)
}
