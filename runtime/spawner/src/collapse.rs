//! The memory of a sandbox is gathered into huge pages, one at a time between all that the spawner
//! has to do.
//!
//! The kernel does it for whoever has `CAP_SYS_NICE` and may look at the process, and who is in a
//! sandbox has neither. A huge page of which less than half was touched is left alone: the rest
//! of it would be charged to the function for nothing.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::time::{Duration, Instant};

use hearth_runtime::id::SandboxId;
use hearth_runtime::sandbox::ask::{Answer, Collapsed};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::clients::{Asker, Clients};
use crate::spawner::Spawner;

/// A huge page of x86-64.
const HUGE: u64 = 2 << 20;
const PAGE: u64 = 4096;
/// How long it may hold up all others at once.
const TURN: Duration = Duration::from_millis(2);
/// For how many sandboxes it is done after each other.
const MOST: usize = 256;
/// Huge pages of one sandbox.
const MOST_PAGES: usize = 1024;
/// Bytes of a list of mappings that are read.
const MOST_MAPS: u64 = 1 << 20;

/// What is still to be done for one sandbox.
#[derive(Debug)]
pub(crate) struct Collapse {
    asker: Asker,
    sandbox: SandboxId,
    processes: VecDeque<i32>,
    now: Option<Memory>,
    looked: usize,
    done: Collapsed,
}

/// The memory of one process.
#[derive(Debug)]
struct Memory {
    process: OwnedFd,
    pages: File,
    /// Where huge pages can be.
    starts: VecDeque<u64>,
}

impl Spawner {
    pub(crate) fn collapse(&mut self, asker: Asker, id: SandboxId, clients: &mut Clients) {
        let number = self.by_id.get(&id);
        let sandbox = number.and_then(|number| self.sandboxes.get(number));
        let sandbox = sandbox.filter(|one| one.function.is_some() && !one.is_ending());
        let Some(sandbox) = sandbox else {
            let why = format!("sandbox {id} is not there: it has ended, or was never claimed");
            return self.refuse(asker, &why, false, clients);
        };
        if self.collapses.len() >= MOST {
            let why = format!("the memory of {MOST} sandboxes is being gathered already");
            return self.refuse(asker, &why, true, clients);
        }
        match sandbox.slot.cgroup.procs() {
            Ok(processes) => self.collapses.push_back(Collapse {
                asker,
                sandbox: id,
                processes: processes.into(),
                now: None,
                looked: 0,
                done: Collapsed::default(),
            }),
            Err(error) => self.refuse(asker, &error.to_string(), true, clients),
        }
    }

    /// A little of it.
    pub(crate) fn collapse_more(&mut self, clients: &mut Clients) {
        let until = Instant::now() + TURN;
        while Instant::now() < until {
            let Some(collapse) = self.collapses.front_mut() else {
                return;
            };
            let number = self.by_id.get(&collapse.sandbox);
            let sandbox = number.and_then(|number| self.sandboxes.get(number));
            let goes_on = sandbox.is_some_and(|sandbox| {
                let is_in = |pid| {
                    sandbox
                        .slot
                        .cgroup
                        .procs()
                        .is_ok_and(|all| all.contains(&pid))
                };
                clients.is_there(collapse.asker) && !sandbox.is_ending() && collapse.step(is_in)
            });
            if !goes_on && let Some(collapse) = self.collapses.pop_front() {
                let answer = Answer::Collapsed(collapse.done);
                clients.answer(collapse.asker, answer, &self.poll);
            }
        }
    }
}

impl Collapse {
    /// One huge page, or a look at the next process; whether there may be more.
    fn step(&mut self, is_in: impl Fn(i32) -> bool) -> bool {
        if let Some(start) = self.now.as_mut().and_then(|now| now.starts.pop_front()) {
            self.looked += 1;
            if let Some(memory) = &self.now {
                match memory.gather(start) {
                    Ok(true) => self.done.bytes += HUGE,
                    Ok(false) => self.done.sparse_bytes += HUGE,
                    Err(error) => self.failed(HUGE, &error),
                }
            }
            return self.looked < MOST_PAGES;
        }
        self.now = None;
        let Some(pid) = self.processes.pop_front() else {
            return false;
        };
        match Memory::of(pid, is_in) {
            Ok(memory) => self.now = memory,
            Err(error) => self.failed(0, &error),
        }
        true
    }

    fn failed(&mut self, bytes: u64, error: &io::Error) {
        self.done.failed_bytes += bytes;
        let why = || match error.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => format!(
                "{error}: start hearth-spawner with CAP_SYS_NICE and CAP_SYS_PTRACE (systemd: \
                 CapabilityBoundingSet=)"
            ),
            Some(libc::EINVAL | libc::ENOSYS) => {
                format!("{error}: it takes Linux 6.1 or later, with transparent huge pages")
            }
            _ => error.to_string(),
        };
        self.done.why.get_or_insert_with(why);
    }
}

impl Memory {
    /// Of a process that is in the sandbox; none where it is not any more.
    fn of(number: i32, is_in: impl Fn(i32) -> bool) -> io::Result<Option<Self>> {
        let Some(pid) = Pid::from_raw(number) else {
            return Ok(None);
        };
        // What is open is of one process. Only then it is asked whether that is in the sandbox: the
        // number may have been given to another one since it was listed.
        let opened = pidfd_open(pid, PidfdFlags::empty()).map_err(io::Error::from);
        let opened = opened.and_then(|process| {
            let of = |name| File::open(format!("/proc/{number}/{name}"));
            Ok((process, of("maps")?, of("pagemap")?))
        });
        let (process, maps, pages) = match opened {
            Err(error) if is_over(&error) => return Ok(None),
            opened => opened?,
        };
        if !is_in(number) {
            return Ok(None);
        }
        let mut bytes = Vec::new();
        match maps.take(MOST_MAPS).read_to_end(&mut bytes) {
            Err(error) if is_over(&error) => return Ok(None),
            read => read?,
        };
        Ok(Some(Self {
            process,
            pages,
            starts: starts(&String::from_utf8_lossy(&bytes)),
        }))
    }

    /// Gathers one huge page; whether there was enough of it.
    fn gather(&self, start: u64) -> io::Result<bool> {
        if !self.is_dense(start)? {
            return Ok(false);
        }
        let length = usize::try_from(HUGE).unwrap_or(usize::MAX);
        let part = libc::iovec {
            iov_base: std::ptr::without_provenance_mut(usize::try_from(start).unwrap_or(0)),
            iov_len: length,
        };
        // SAFETY: the address is one of the other process, whose memory keeps its content; of ours
        // the kernel reads `part`.
        let done = unsafe {
            libc::syscall(
                libc::SYS_process_madvise,
                self.process.as_raw_fd(),
                &raw const part,
                1,
                libc::MADV_COLLAPSE,
                0,
            )
        };
        if done < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(true)
    }

    /// Whether at least half of its pages are there.
    fn is_dense(&self, start: u64) -> io::Result<bool> {
        const ENTRIES: usize = 512;
        let mut entries = [0; ENTRIES * 8];
        self.pages.read_exact_at(&mut entries, start / PAGE * 8)?;
        let (entries, _) = entries.as_chunks::<8>();
        let present = entries
            .iter()
            .filter(|entry| u64::from_ne_bytes(**entry) >> 63 == 1);
        Ok(present.count() >= ENTRIES / 2)
    }
}

/// The process has ended meanwhile.
fn is_over(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ESRCH | libc::ENOENT))
}

/// From where to where a line of `maps` says that there is private memory of no file.
fn anonymous(line: &str) -> Option<(u64, u64)> {
    let mut words = line.split_ascii_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    let is_private = words.next()? == "rw-p";
    let inode = words.nth(2)?;
    let name = words.next().unwrap_or("[heap]");
    let is_plain = name == "[heap]" || name.starts_with("[anon:");
    let address = |text| u64::from_str_radix(text, 16).ok();
    (is_private && inode == "0" && is_plain).then_some((address(start)?, address(end)?))
}

/// Where whole huge pages begin in what `maps` says.
fn starts(maps: &str) -> VecDeque<u64> {
    let regions = maps.lines().filter_map(anonymous);
    let pages = regions.flat_map(|(start, end)| {
        let whole = start.next_multiple_of(HUGE)..(end & !(HUGE - 1));
        whole.step_by(usize::try_from(HUGE).unwrap_or(usize::MAX))
    });
    pages.take(MOST_PAGES).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_huge_pages_of_private_memory_of_no_file_are_gathered() {
        let starts = |line: &str| -> Vec<u64> {
            starts(line).into_iter().map(|start| start >> 20).collect()
        };
        assert_eq!(
            starts("00100000-00900000 rw-p 00000000 00:00 0 "),
            [2, 4, 6]
        );
        assert_eq!(
            starts("00200000-00400000 rw-p 00000000 00:00 0 [heap]"),
            [2]
        );
        assert_eq!(
            starts("00200000-00400000 rw-p 00000000 00:00 0 [anon:jit]"),
            [2]
        );
        for other in [
            "00200000-003ff000 rw-p 00000000 00:00 0 ",
            "00200000-00400000 r--p 00000000 00:00 0 ",
            "00200000-00400000 rw-s 00000000 00:00 0 ",
            "00200000-00400000 rw-p 00000000 08:01 7 /bootstrap",
            "00200000-00400000 rw-p 00000000 00:00 0 [stack]",
            "",
        ] {
            assert!(starts(other).is_empty(), "{other}");
        }
    }
}
