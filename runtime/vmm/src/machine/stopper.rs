//! Gets a machine to stop from another thread.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::thread;
use std::time::Duration;

use super::alarm;

/// It is told again: once is lost where it is told just before the guest is entered.
const AGAIN: Duration = Duration::from_millis(1);

/// Stops one machine.
#[derive(Clone, Default)]
pub struct Stopper(Arc<Shared>);

#[derive(Default)]
struct Shared {
    asked: AtomicBool,
    /// The thread that runs the machine; 0 while none does.
    thread: AtomicI32,
}

impl Stopper {
    /// Has it stop, and waits until it has. One that does not run stops as soon as it does.
    pub fn stop(&self) -> io::Result<()> {
        let signal = alarm::signal()?;
        self.0.asked.store(true, Ordering::SeqCst);
        loop {
            let thread = self.0.thread.load(Ordering::SeqCst);
            if thread == 0 || !self.0.asked.load(Ordering::SeqCst) {
                return Ok(());
            }
            let process = i32::try_from(std::process::id()).unwrap_or(0);
            // SAFETY: a number that is no thread of this process any more is refused, and the signal
            // does nothing to any other.
            unsafe { libc::syscall(libc::SYS_tgkill, process, thread, signal) };
            thread::sleep(AGAIN);
        }
    }

    /// Whether it was asked to stop; told once.
    pub(super) fn is_asked(&self) -> bool {
        self.0.asked.swap(false, Ordering::SeqCst)
    }

    /// This thread runs it, until what is given is dropped.
    pub(super) fn runs(&self) -> Running {
        // SAFETY: it returns a number.
        let thread = unsafe { libc::gettid() };
        self.0.thread.store(thread, Ordering::SeqCst);
        Running(Arc::clone(&self.0))
    }
}

pub(super) struct Running(Arc<Shared>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.thread.store(0, Ordering::SeqCst);
    }
}
