//! Gets a thread out of a guest when the time is over.

use std::io;
use std::ptr;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// It comes again: the first one is lost where it comes just before the guest is entered.
const AGAIN: Duration = Duration::from_millis(1);

/// A timer of the thread that made it, whose signal does nothing but interrupt.
pub(super) struct Alarm {
    timer: libc::timer_t,
    deadline: Instant,
}

impl Alarm {
    pub(super) fn at(deadline: Instant) -> io::Result<Self> {
        let signal = signal()?;
        let left = deadline.saturating_duration_since(Instant::now());
        // SAFETY: all zeroes are such a struct.
        let mut event: libc::sigevent = unsafe { std::mem::zeroed() };
        event.sigev_notify = libc::SIGEV_THREAD_ID;
        event.sigev_signo = signal;
        // SAFETY: it returns a number.
        event.sigev_notify_thread_id = unsafe { libc::gettid() };
        let mut timer = ptr::null_mut();
        // SAFETY: both are there for the call.
        checked(unsafe {
            libc::timer_create(libc::CLOCK_MONOTONIC, &raw mut event, &raw mut timer)
        })?;
        let alarm = Self { timer, deadline };
        let settings = libc::itimerspec {
            it_interval: timespec(AGAIN),
            // Zero would be never.
            it_value: timespec(left.max(Duration::from_nanos(1))),
        };
        // SAFETY: the timer is there, and the settings are for the call.
        checked(unsafe { libc::timer_settime(timer, 0, &raw const settings, ptr::null_mut()) })?;
        Ok(alarm)
    }

    pub(super) fn is_over(&self) -> bool {
        Instant::now() >= self.deadline
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        // SAFETY: it was made with it, and is not used any more.
        unsafe { libc::timer_delete(self.timer) };
    }
}

/// The signal, which is taken from the first time on that somebody asks.
pub(super) fn signal() -> io::Result<libc::c_int> {
    static TAKEN: OnceLock<Result<libc::c_int, i32>> = OnceLock::new();
    extern "C" fn nothing(_: libc::c_int) {}
    let taken = TAKEN.get_or_init(|| {
        let signal = libc::SIGRTMIN();
        // SAFETY: all zeroes are such a struct.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = nothing as extern "C" fn(libc::c_int) as libc::sighandler_t;
        // SAFETY: the handler does nothing, so that it may come at any time.
        match unsafe { libc::sigaction(signal, &raw const action, ptr::null_mut()) } {
            0 => Ok(signal),
            _ => Err(io::Error::last_os_error().raw_os_error().unwrap_or(0)),
        }
    });
    taken.map_err(io::Error::from_raw_os_error)
}

fn checked(returned: libc::c_int) -> io::Result<()> {
    match returned {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn timespec(duration: Duration) -> libc::timespec {
    libc::timespec {
        tv_sec: duration.as_secs().try_into().unwrap_or(libc::time_t::MAX),
        tv_nsec: duration.subsec_nanos().into(),
    }
}
