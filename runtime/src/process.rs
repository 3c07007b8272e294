//! One process for certain: its number is given to another one when it is gone, so that it alone
//! never decides whom a signal reaches.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::{Deserialize, Serialize};

/// A process as the journal keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Process {
    /// Its number in the pid namespace of who wrote it down.
    pub pid: u32,
    /// When it started.
    pub start: StartTime,
}

/// When a process started: clock ticks since boot, field 22 of `/proc/PID/stat`. With the number
/// and the boot it names one process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StartTime(pub u64);

impl Process {
    /// The process that has this number now; none where there is none.
    pub fn of(pid: u32) -> io::Result<Option<Self>> {
        let start = start_time(pid)?;
        Ok(start.map(|start| Self { pid, start }))
    }

    /// A handle of just this process, for signals and for its end; none where it is gone (a
    /// zombie is not), whoever has its number now.
    pub fn open(self) -> io::Result<Option<OwnedFd>> {
        let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) else {
            return Ok(None);
        };
        let handle = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(handle) => handle,
            Err(Errno::SRCH) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        // In this order: once the handle is held, the number cannot go to another process
        // unnoticed between the look and its use.
        Ok((start_time(self.pid)? == Some(self.start)).then_some(handle))
    }
}

fn start_time(pid: u32) -> io::Result<Option<StartTime>> {
    let path = format!("/proc/{pid}/stat");
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let file = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(file) => file,
        Err(Errno::NOENT) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let mut bytes = [0; 1024];
    match rustix::io::read(file.as_fd(), &mut bytes[..]) {
        Ok(read) => Ok(parse_start(bytes.get(..read).unwrap_or_default())),
        Err(Errno::SRCH) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The name in parentheses is the process's own choice: it may hold spaces and parentheses.
fn parse_start(stat: &[u8]) -> Option<StartTime> {
    let name_end = stat.iter().rposition(|byte| *byte == b')')?;
    let rest = std::str::from_utf8(stat.get(name_end + 1..)?).ok()?;
    // Field 3, the state, is the first of `rest`.
    let ticks = rest.split_ascii_whitespace().nth(22 - 3)?;
    ticks.parse().ok().map(StartTime)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::process::{Command, Stdio};

    use rustix::process::{Signal, pidfd_send_signal};

    use super::*;

    #[test]
    fn a_process_is_found_by_number_and_start_only() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let process = Process::of(child.id()).unwrap().unwrap();
        let handle = process.open().unwrap().unwrap();
        let other = Process {
            start: StartTime(process.start.0 + 1),
            ..process
        };
        assert!(other.open().unwrap().is_none(), "started at another time");
        pidfd_send_signal(&handle, Signal::KILL).unwrap();
        child.wait().unwrap();
        assert!(process.open().unwrap().is_none(), "gone");
        assert!(Process::of(child.id()).unwrap().is_none(), "gone");
        let none = Process { pid: 0, ..process };
        assert!(none.open().unwrap().is_none(), "0 is nobody, not everybody");
    }

    #[test]
    fn a_name_of_a_process_cannot_pass_for_its_start() {
        let stat = b"7 (a) S 1 2) 3 (x) R 1 7 7 0 -1 0 0 0 0 0 1 2 0 0 20 0 1 0 4711 0 0";
        assert_eq!(parse_start(stat), Some(StartTime(4711)));
        assert_eq!(parse_start(b"7 (a"), None);
        assert_eq!(parse_start(b"7 (a) S 1"), None);
    }
}
