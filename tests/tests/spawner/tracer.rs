//! A program that is killed right before the n-th of its calls that change anything.

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

pub(crate) struct Traced {
    pid: Pid,
    thread: JoinHandle<Result<u64>>,
}

impl Traced {
    /// Starts it, to be killed before call number `nth`, from 1.
    pub(crate) fn start(command: Command, nth: u64) -> Result<Self> {
        let (sender, started) = mpsc::channel();
        // Only the thread that traces may do so.
        let thread = thread::spawn(move || trace(command, nth, &sender));
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

    /// Kills it where it is, if it still runs; how many calls it had made.
    pub(crate) fn kill(self) -> Result<u64> {
        if !self.is_dead() {
            // Reaped by the thread alone, so that the number is its own as long as that runs.
            let _ = kill_process(self.pid, Signal::KILL);
        }
        self.thread.join().ok().context("the tracer panicked")?
    }
}

fn trace(mut command: Command, nth: u64, started: &mpsc::Sender<Pid>) -> Result<u64> {
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
    started.send(Pid::from_raw(pid).context("a process")?)?;
    let (mut made, mut is_entry, mut signal) = (0, true, 0);
    loop {
        if request(libc::PTRACE_SYSCALL, pid, signal).is_err() {
            // Killed meanwhile.
            wait(pid)?;
            return Ok(made);
        }
        let status = wait(pid)?;
        if !libc::WIFSTOPPED(status) {
            return Ok(made);
        }
        signal = 0;
        match libc::WSTOPSIG(status) {
            stop if stop == libc::SIGTRAP | 0x80 => {
                if is_entry && CALLS.contains(&number(pid)?) {
                    made += 1;
                    if made == nth {
                        kill_process(Pid::from_raw(pid).context("a process")?, Signal::KILL)?;
                    }
                }
                is_entry = !is_entry;
            }
            libc::SIGTRAP => {}
            other => signal = other.into(),
        }
    }
}

/// Of the call that it is about to make.
fn number(pid: i32) -> Result<i64> {
    // SAFETY: `user_regs_struct` is numbers, all of which the kernel fills in.
    unsafe {
        let mut registers: libc::user_regs_struct = std::mem::zeroed();
        let done = libc::ptrace(libc::PTRACE_GETREGS, pid, 0, &raw mut registers);
        ensure!(done == 0, "{}", std::io::Error::last_os_error());
        Ok(registers.orig_rax.cast_signed())
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
