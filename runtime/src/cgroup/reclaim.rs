//! Takes back what a cgroup is still charged for when its processes are gone: page cache above all.

use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::error::Result;
use super::group::Cgroup;
use super::layout::{Controller, Version};

/// Rounds that take nothing before there is no more to be had: what the kernel keeps for a cgroup
/// is given up at once, and counted as free when all processors have passed a quiet state.
const IDLE: u32 = 20;

/// Between such rounds.
pub(super) const PAUSE: Duration = Duration::from_millis(10);

/// Bytes that are taken back in one round: some milliseconds' work for the kernel.
const ROUND: u64 = 32 << 20;

/// How far it has come.
#[derive(Debug)]
pub(super) struct Reclaim {
    least: u64,
    idle: u32,
}

/// What one round has come to.
pub(super) enum Round {
    /// This is charged, and it will not become less.
    Done(u64),
    /// The next one may follow at once.
    More,
    /// The next one should come after a [`PAUSE`].
    Idle,
}

impl Default for Reclaim {
    fn default() -> Self {
        Self {
            least: u64::MAX,
            idle: 0,
        }
    }
}

impl Reclaim {
    /// Takes back one round's bytes, unless at most `bound` are charged; `None` where memory is
    /// not accounted.
    pub(super) fn round(&mut self, cgroup: &Cgroup, bound: u64) -> Result<Option<Round>> {
        let Some(dir) = cgroup.carrier(Controller::Memory) else {
            return Ok(None);
        };
        let charge = cgroup.charge()?.unwrap_or(0);
        if charge <= bound || self.idle > IDLE {
            return Ok(Some(Round::Done(charge)));
        }
        let is_idle = charge >= self.least;
        if is_idle {
            self.idle += 1;
        } else {
            (self.least, self.idle) = (charge, 0);
        }
        let taken = match dir.version {
            // v1 takes all at once, or what is above a limit.
            Version::V1 if charge > 2 * ROUND => {
                dir.write("memory.limit_in_bytes", &(charge - ROUND).to_string())
            }
            Version::V1 => dir.write("memory.force_empty", "0"),
            Version::V2 => dir.write("memory.reclaim", &charge.min(ROUND).to_string()),
        };
        match taken {
            // Less than all could be taken; or (v1) some of it was in use just then.
            Err(error) if error.is(Errno::AGAIN) || error.is(Errno::BUSY) => {}
            taken => taken?,
        }
        Ok(Some(if is_idle { Round::Idle } else { Round::More }))
    }
}

impl Cgroup {
    /// Takes memory back until at most `bound` bytes are charged, or there is no more to be had,
    /// or the deadline is over; what is charged then. `None` where memory is not accounted. A v1
    /// limit may be left lower than it was: it is for a cgroup that is to be clean.
    pub fn reclaim(&self, bound: u64, deadline: Instant) -> Result<Option<u64>> {
        let mut reclaim = Reclaim::default();
        loop {
            match reclaim.round(self, bound)? {
                None => return Ok(None),
                Some(Round::Done(charge)) => return Ok(Some(charge)),
                Some(_) if Instant::now() > deadline => return self.charge(),
                Some(Round::More) => {}
                Some(Round::Idle) => thread::sleep(PAUSE),
            }
        }
    }
}
