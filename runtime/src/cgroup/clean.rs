//! A slot on its way to be clean again: in small steps, for who must not wait.

use std::time::{Duration, Instant};

use super::apply::Files;
use super::error::{Error, Result};
use super::group::Cgroup;
use super::reclaim::{PAUSE, Reclaim, Round};

/// Between looks at one that cannot be cleaned yet: at first, and at most.
const FIRST: Duration = Duration::from_millis(1);
const LAST: Duration = Duration::from_secs(1);

/// How long one that nobody is in any more may take to be clean.
const SOON: Duration = Duration::from_secs(1);

/// One that was given back.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) cgroup: Cgroup,
    pub(super) since: Instant,
    /// Nothing can be done before.
    pub(super) due: Instant,
    /// Processes are in it, or were when that was last looked at.
    pub(super) is_inhabited: bool,
    /// It is not to be used again.
    pub(super) is_spent: bool,
    pause: Duration,
    reclaim: Reclaim,
}

/// What one step has come to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// There is more to do, when it is due.
    Later,
    /// It is as good as new.
    Clean,
    /// It never will be.
    Unclean,
    /// Somebody else has removed it.
    Lost,
}

impl Waiting {
    pub(super) fn new(cgroup: Cgroup) -> Self {
        let now = Instant::now();
        Self {
            cgroup,
            since: now,
            due: now,
            is_inhabited: false,
            is_spent: false,
            pause: FIRST,
            reclaim: Reclaim::default(),
        }
    }

    /// Whether it will be clean in a moment, so that none needs be made in its place.
    pub(super) fn is_coming(&self) -> bool {
        !self.is_spent && !self.is_inhabited && self.since.elapsed() < SOON
    }

    /// Not before a while that grows.
    pub(super) fn put_off(&mut self) {
        self.due = Instant::now() + self.pause;
        self.pause = (self.pause * 2).min(LAST);
    }

    /// Does what takes no more than some milliseconds.
    pub(super) fn step(&mut self, bound: u64) -> Result<Step> {
        if !self.cgroup.is_there() {
            return Ok(Step::Lost);
        }
        match self.cgroup.is_populated() {
            Err(error) if error.is_gone() => return Ok(Step::Lost),
            populated => self.is_inhabited = populated?,
        }
        if self.is_inhabited {
            if self.is_spent {
                // Who is in there is nobody's. Those that do not die now are killed next time.
                let _ = self.cgroup.kill(Instant::now() + FIRST);
            }
            self.put_off();
            return Ok(Step::Later);
        }
        match self.clean(bound) {
            Err(error) if error.is_gone() => Ok(Step::Lost),
            Err(_) => Ok(Step::Unclean),
            cleaned => cleaned,
        }
    }

    /// Page cache goes even of one that is deleted next: it would keep it in the kernel after its
    /// end.
    fn clean(&mut self, bound: u64) -> Result<Step> {
        if self.cgroup.is_altered()? {
            return Ok(Step::Unclean);
        }
        match self.cgroup.thaw() {
            // Where nothing can be frozen nothing is.
            Err(Error::Unsupported { .. }) => {}
            thawed => thawed?,
        }
        match self.reclaim.round(&self.cgroup, bound)? {
            Some(Round::More) => {
                self.due = Instant::now();
                return Ok(Step::Later);
            }
            Some(Round::Idle) => {
                self.due = Instant::now() + PAUSE;
                return Ok(Step::Later);
            }
            Some(Round::Done(charge)) if charge > bound => return Ok(Step::Unclean),
            Some(Round::Done(_)) | None => {}
        }
        self.cgroup.reset(&mut Files::default())?;
        self.cgroup.forget_peak()?;
        let is_clean = !self.cgroup.is_populated()?;
        Ok(if is_clean { Step::Clean } else { Step::Unclean })
    }
}
