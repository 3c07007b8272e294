//! Signals to this process, as something to wait for.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd as _, OwnedFd};

/// A descriptor of the signals that end us, and of ends of children.
#[derive(Debug)]
pub(crate) struct Signals(OwnedFd);

impl Signals {
    /// From now on they do nothing but to be told here.
    pub(crate) fn take() -> io::Result<Self> {
        let mut set = std::mem::MaybeUninit::uninit();
        // SAFETY: the set is made by the first call, and read by the others; the descriptor is new
        // and nobody else's.
        unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGCHLD] {
                libc::sigaddset(set.as_mut_ptr(), signal);
            }
            if libc::sigprocmask(libc::SIG_BLOCK, set.as_ptr(), std::ptr::null_mut()) != 0 {
                return Err(io::Error::last_os_error());
            }
            let fd = libc::signalfd(-1, set.as_ptr(), libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            Ok(Self(OwnedFd::from_raw_fd(fd)))
        }
    }

    /// Takes all that came; whether one of them ends us.
    pub(crate) fn read(&self) -> bool {
        const SIZE: usize = size_of::<libc::signalfd_siginfo>();
        let mut is_end = false;
        let mut bytes = [0; SIZE];
        while let Ok(SIZE) = rustix::io::read(&self.0, &mut bytes) {
            // `ssi_signo` comes first.
            let number = bytes.first_chunk().copied().unwrap_or_default();
            is_end |= u32::from_ne_bytes(number) != libc::SIGCHLD.cast_unsigned();
        }
        is_end
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
