//! Ends all processes of a cgroup, those too that fork faster than one can count.

use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::dir::Dir;
use super::error::{Error, Result};
use super::freeze::wait_for;
use super::group::Cgroup;

impl Cgroup {
    /// Sends all processes in it and below it to their end, without waiting for it. One that forks
    /// meanwhile may be missed where the kernel cannot kill a cgroup as a whole.
    pub fn begin_kill(&self) -> Result<()> {
        if let Some(v2) = self.v2().filter(|dir| dir.has("cgroup.kill")) {
            self.was_killed.store(true, Ordering::Relaxed);
            v2.write("cgroup.kill", "1")?;
        }
        let mut pids = self.procs()?.into_iter();
        pids.try_for_each(|pid| self.kill_one(pid))
    }

    /// Kills all processes in it and below it, and waits until they are gone.
    pub fn kill(&self, deadline: Instant) -> Result<()> {
        if let Some(v2) = self.v2().filter(|dir| dir.has("cgroup.kill")) {
            self.was_killed.store(true, Ordering::Relaxed);
            kill_v2(v2, deadline)?;
        }
        // Also where a process has left the twin of a hybrid host.
        self.kill_each(deadline)?;
        if self.is_populated()? {
            return Err(self.late());
        }
        Ok(())
    }

    /// Stops them, so that none can fork, kills each, and lets them go on to their end.
    ///
    /// A fork that was under way leaves one that was not in the list: look again.
    fn kill_each(&self, deadline: Instant) -> Result<()> {
        let mut pause = Duration::from_micros(500);
        while !self.procs()?.is_empty() {
            if Instant::now() > deadline {
                return Err(self.late());
            }
            // Forks that cannot be stopped in time are killed as they come.
            let soon = Instant::now() + Duration::from_millis(100);
            let is_frozen = self.freeze(soon.min(deadline)).is_ok();
            let killed = self
                .procs()?
                .into_iter()
                .try_for_each(|pid| self.kill_one(pid));
            if is_frozen {
                self.thaw()?;
            }
            killed?;
            thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(20));
        }
        Ok(())
    }

    fn kill_one(&self, pid: i32) -> Result<()> {
        let Some(number) = Pid::from_raw(pid) else {
            return Ok(());
        };
        let failed = |errno| super::dir::fault("kill a process of", self.path(), errno);
        let process = match pidfd_open(number, PidfdFlags::empty()) {
            Err(Errno::SRCH) => return Ok(()),
            process => process.map_err(failed)?,
        };
        // Since it was listed its number may have gone to a process that is not ours.
        if !self.procs()?.contains(&pid) {
            return Ok(());
        }
        match pidfd_send_signal(&process, Signal::KILL) {
            Err(Errno::SRCH) => Ok(()),
            sent => sent.map_err(failed),
        }
    }

    fn late(&self) -> Error {
        Error::Late {
            path: self.path().to_path_buf(),
            wanted: "dead",
            pids: self.survivors(),
        }
    }
}

fn kill_v2(dir: &Dir, deadline: Instant) -> Result<()> {
    dir.write("cgroup.kill", "1")?;
    wait_for(dir, "populated", 0, deadline)?;
    Ok(())
}
