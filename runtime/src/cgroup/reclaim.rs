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
const PAUSE: Duration = Duration::from_millis(10);

impl Cgroup {
    /// Takes memory back until at most `bound` bytes are charged, or there is no more to be had,
    /// or the deadline is over; what is charged then. `None` where memory is not accounted.
    pub fn reclaim(&self, bound: u64, deadline: Instant) -> Result<Option<u64>> {
        let Some(dir) = self.carrier(Controller::Memory) else {
            return Ok(None);
        };
        let (mut least, mut idle) = (u64::MAX, 0);
        loop {
            let charge = self.charge()?.unwrap_or(0);
            if charge <= bound || idle > IDLE || Instant::now() > deadline {
                return Ok(Some(charge));
            }
            if charge < least {
                (least, idle) = (charge, 0);
            } else {
                idle += 1;
                thread::sleep(PAUSE);
            }
            let taken = match dir.version {
                Version::V1 => dir.write("memory.force_empty", "0"),
                Version::V2 => dir.write("memory.reclaim", &charge.to_string()),
            };
            match taken {
                // Less than all could be taken; or (v1) some of it was in use just then.
                Err(error) if error.is(Errno::AGAIN) || error.is(Errno::BUSY) => {}
                taken => taken?,
            }
        }
    }
}
