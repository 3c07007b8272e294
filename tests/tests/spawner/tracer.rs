//! A spawner that is killed right before or right after one of its calls that change anything.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};

/// Calls after which the world is another one, or the program knows more of it.
const CALLS: [i64; 18] = [
    libc::SYS_bind,
    libc::SYS_clone3,
    libc::SYS_epoll_ctl,
    libc::SYS_fchmod,
    libc::SYS_flock,
    libc::SYS_ftruncate,
    libc::SYS_listen,
    libc::SYS_mkdir,
    libc::SYS_mkdirat,
    libc::SYS_pidfd_send_signal,
    libc::SYS_pwrite64,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_sendto,
    libc::SYS_socketpair,
    libc::SYS_unlink,
    libc::SYS_unlinkat,
    libc::SYS_write,
];

/// When it is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Point {
    /// Of its writes to the journal alone, or of all its calls.
    pub(crate) of: Calls,
    /// At that one, from 1.
    pub(crate) nth: u64,
    /// When it has been made, or when it is about to be.
    pub(crate) is_made: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Calls {
    Journal,
    All,
}

/// How far it came.
#[derive(Clone, Debug, Default)]
pub(crate) struct Came {
    /// Whether it was killed where it should be.
    pub(crate) is_there: bool,
    /// Calls that it made or was about to make.
    pub(crate) calls: u64,
    /// What the last of them was to write to the journal.
    pub(crate) entry: Option<String>,
}

pub(crate) struct Traced {
    pid: Pid,
    thread: JoinHandle<Result<Came>>,
}

impl Traced {
    /// Starts it, to be killed there.
    pub(crate) fn start(command: Command, point: Point) -> Result<Self> {
        let (sender, started) = mpsc::channel();
        // Only the thread that traces may do so.
        let thread = thread::spawn(move || trace(command, point, &sender));
        match started.recv() {
            Ok(pid) => Ok(Self { pid, thread }),
            Err(_) => match thread.join() {
                Ok(Err(error)) => Err(error),
                _ => anyhow::bail!("the tracer did not start"),
            },
        }
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.thread.is_finished()
    }

    /// Kills it where it is, if it still runs.
    pub(crate) fn kill(self) -> Result<Came> {
        if !self.is_dead() {
            // Reaped by the thread alone, so that the number is its own as long as that runs.
            let _ = kill_process(self.pid, Signal::KILL);
        }
        self.thread.join().ok().context("the tracer panicked")?
    }
}

fn trace(mut command: Command, point: Point, started: &mpsc::Sender<Pid>) -> Result<Came> {
    let trace_me = || {
        // SAFETY: a call without arguments that matter.
        match unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) } {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        }
    };
    // SAFETY: it only calls the kernel.
    unsafe { command.pre_exec(trace_me) };
    let child = command.spawn().context("start it")?;
    let pid = i32::try_from(child.id())?;
    wait(pid)?;
    let options = libc::PTRACE_O_TRACESYSGOOD | libc::PTRACE_O_EXITKILL;
    request(libc::PTRACE_SETOPTIONS, pid, options.into())?;
    let process = Pid::from_raw(pid).context("a process")?;
    started.send(process)?;
    let (mut came, mut is_entry, mut signal) = (Came::default(), true, 0);
    // Whether the call that it is in is the one.
    let mut is_it = false;
    loop {
        if request(libc::PTRACE_SYSCALL, pid, signal).is_err() {
            // Killed meanwhile.
            wait(pid)?;
            return Ok(came);
        }
        let status = wait(pid)?;
        if !libc::WIFSTOPPED(status) {
            return Ok(came);
        }
        signal = 0;
        match libc::WSTOPSIG(status) {
            stop if stop == libc::SIGTRAP | 0x80 => {
                if is_entry {
                    is_it = match is_it_now(pid, point, &mut came) {
                        Ok(is_it) => is_it,
                        Err(error) => {
                            // Of one that was killed where it stopped nothing can be read.
                            ensure!(request(libc::PTRACE_SYSCALL, pid, 0).is_err(), error);
                            wait(pid)?;
                            return Ok(came);
                        }
                    };
                }
                if is_it && is_entry != point.is_made {
                    came.is_there = true;
                    kill_process(process, Signal::KILL)?;
                }
                is_entry = !is_entry;
            }
            libc::SIGTRAP => {}
            other => signal = other.into(),
        }
    }
}

/// Counts the call that it is about to make.
fn is_it_now(pid: i32, point: Point, came: &mut Came) -> Result<bool> {
    let call = registers(pid)?;
    if !CALLS.contains(&call.orig_rax.cast_signed()) {
        return Ok(false);
    }
    let entry = journal_entry(pid, &call)?;
    if entry.is_none() && point.of == Calls::Journal {
        return Ok(false);
    }
    came.calls += 1;
    came.entry = entry;
    Ok(came.calls == point.nth)
}

/// What it is about to write to its journal.
fn journal_entry(pid: i32, call: &libc::user_regs_struct) -> Result<Option<String>> {
    if call.orig_rax.cast_signed() != libc::SYS_write {
        return Ok(None);
    }
    let file = fs::read_link(format!("/proc/{pid}/fd/{}", call.rdi)).unwrap_or_default();
    if !file.ends_with("journal") && !file.ends_with("journal.new") {
        return Ok(None);
    }
    let mut bytes = vec![0; usize::try_from(call.rdx)?];
    fs::File::open(format!("/proc/{pid}/mem"))?.read_exact_at(&mut bytes, call.rsi)?;
    Ok(Some(String::from_utf8(bytes)?))
}

fn registers(pid: i32) -> Result<libc::user_regs_struct> {
    // SAFETY: `user_regs_struct` is numbers, all of which the kernel fills in.
    unsafe {
        let mut registers: libc::user_regs_struct = std::mem::zeroed();
        let done = libc::ptrace(libc::PTRACE_GETREGS, pid, 0, &raw mut registers);
        ensure!(done == 0, "{}", std::io::Error::last_os_error());
        Ok(registers)
    }
}

fn request(what: u32, pid: i32, data: i64) -> Result<()> {
    // SAFETY: requests without addresses.
    let done = unsafe { libc::ptrace(what, pid, 0, data) };
    ensure!(done == 0, "{}", std::io::Error::last_os_error());
    Ok(())
}

fn wait(pid: i32) -> Result<i32> {
    let mut status = 0;
    // SAFETY: the status is ours.
    let waited = unsafe { libc::waitpid(pid, &raw mut status, 0) };
    ensure!(waited == pid, "{}", std::io::Error::last_os_error());
    Ok(status)
}
