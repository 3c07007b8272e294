//! The time namespace: a function's monotonic clock and its boot clock begin with it, and so say
//! neither how long the node is up nor, by a common zero, which sandboxes share one.

use std::fs::File;
use std::io::Write as _;

use rustix::io::Errno;
use rustix::thread::UnshareFlags;
use rustix::time::{ClockId, clock_gettime};

use super::fault::{At as _, Fault};

/// What offsets are written to, until the first process is in the namespace.
pub(super) struct Clock(File);

impl Clock {
    /// For the next process that is started; none where the kernel has no such namespaces.
    pub(super) fn prepare() -> Result<Option<Self>, Fault> {
        let new = UnshareFlags::from_bits_retain(libc::CLONE_NEWTIME.cast_unsigned());
        // SAFETY: of what is shared with other threads nothing is unshared.
        match unsafe { rustix::thread::unshare_unsafe(new) } {
            Ok(()) => {}
            Err(Errno::INVAL) => return Ok(None),
            Err(error) => return Err(error).at("making a time namespace"),
        }
        let offsets = File::options()
            .write(true)
            .open("/proc/self/timens_offsets");
        Ok(Some(Self(offsets.at("opening the offsets of its clocks")?)))
    }

    /// The clocks begin, at less than a second.
    pub(super) fn begin(mut self) -> Result<(), Fault> {
        let monotonic = clock_gettime(ClockId::Monotonic).tv_sec;
        let boot = clock_gettime(ClockId::Boottime).tv_sec;
        let offsets = format!("monotonic -{monotonic} 0\nboottime -{boot} 0\n");
        self.0
            .write_all(offsets.as_bytes())
            .at("beginning its clocks")
    }
}
