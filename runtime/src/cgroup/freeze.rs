//! Stops all processes of a cgroup where they are, and lets them go on.

use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use rustix::io::retry_on_intr;

use super::dir::{Dir, fault, read_whole};
use super::error::{Error, Result};
use super::flat;
use super::group::Cgroup;
use super::layout::Controller;

impl Cgroup {
    /// Stops its processes, and waits until they are: they are let go again where that is not so
    /// before `deadline`.
    pub fn freeze(&self, deadline: Instant) -> Result<()> {
        let frozen = match (self.v2(), self.carrier(Controller::Freezer)) {
            (Some(dir), _) => {
                dir.write("cgroup.freeze", "1")?;
                wait_for(dir, "frozen", 1, deadline)?
            }
            (None, Some(dir)) => freeze_v1(dir, deadline)?,
            (None, None) => return Err(NONE),
        };
        if frozen {
            return Ok(());
        }
        let pids = self.survivors();
        self.thaw()?;
        Err(Error::Late {
            path: self.path().to_path_buf(),
            wanted: "frozen",
            pids,
        })
    }

    /// Lets its processes go on.
    pub fn thaw(&self) -> Result<()> {
        match (self.v2(), self.carrier(Controller::Freezer)) {
            (Some(dir), _) => dir.write("cgroup.freeze", "0"),
            (None, Some(dir)) => dir.write("freezer.state", "THAWED"),
            (None, None) => Err(NONE),
        }
    }
}

const NONE: Error = Error::Unsupported {
    what: "freezing",
    why: "neither cgroup v2 nor the v1 freezer is mounted",
};

/// How often files are read that tell nothing by themselves.
const PAUSE: Duration = Duration::from_millis(2);

/// v1 may have to be told again when processes fork meanwhile.
fn freeze_v1(dir: &Dir, deadline: Instant) -> Result<bool> {
    loop {
        dir.write("freezer.state", "FROZEN")?;
        if dir.read("freezer.state")?.trim() == "FROZEN" {
            return Ok(true);
        }
        if Instant::now() > deadline {
            return Ok(false);
        }
        thread::sleep(PAUSE);
    }
}

/// Waits until `cgroup.events` has this value; whether it has.
pub(super) fn wait_for(dir: &Dir, key: &str, wanted: u64, deadline: Instant) -> Result<bool> {
    let path = || dir.path.join("cgroup.events");
    let events = dir.open("cgroup.events", OFlags::RDONLY)?;
    loop {
        let text = read_whole(&events).map_err(|errno| fault("read", &path(), errno))?;
        if flat::value(&text, key) == Some(wanted) {
            return Ok(true);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        let left = Timespec::try_from(left).unwrap_or_default();
        let mut of = [PollFd::new(&events, PollFlags::PRI)];
        retry_on_intr(|| poll(&mut of, Some(&left)))
            .map_err(|errno| fault("wait for", &path(), errno))?;
    }
}
