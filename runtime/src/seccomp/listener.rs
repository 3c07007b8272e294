//! Who is asked about what the list does not allow: refuses it, and says what it was.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use seccompiler::{BpfProgram, sock_filter};
use syscalls::Sysno;

use super::filter::Filter;

/// Answers for the calls that a filter does not allow. Whoever makes one waits for the answer:
/// where nobody holds this any more, it fails with `ENOSYS`.
#[derive(Debug)]
pub struct Listener(OwnedFd);

/// A call that was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Its number.
    pub number: i32,
    /// The thread that made it; 0 where the listener does not see its pid namespace.
    pub tid: u32,
}

impl Refusal {
    /// Its name; none where it is newer than this program.
    #[must_use]
    pub fn name(&self) -> Option<&'static str> {
        let number = usize::try_from(self.number).ok()?;
        Sysno::new(number).map(|call| call.name())
    }
}

impl Filter {
    /// Puts the calling thread, and all that it will start, under this filter, for ever.
    ///
    /// `no_new_privs` is set first, since the kernel asks for it. The listener is to be sent to
    /// somebody else: a thread that answers for itself waits for ever.
    pub fn install(&self) -> io::Result<Listener> {
        rustix::thread::set_no_new_privs(true)?;
        let listener = set(&self.0, libc::SECCOMP_FILTER_FLAG_NEW_LISTENER)?;
        let listener = i32::try_from(listener).map_err(io::Error::other)?;
        // SAFETY: with this flag the call returns a new descriptor, which nobody else owns.
        Ok(Listener(unsafe { OwnedFd::from_raw_fd(listener) }))
    }
}

fn set(program: &BpfProgram, flags: libc::c_ulong) -> io::Result<libc::c_long> {
    let length = u16::try_from(program.len()).map_err(io::Error::other)?;
    let program = libc::sock_fprog {
        len: length,
        // Both are the kernel's struct sock_filter: u16, u8, u8, u32.
        filter: program.as_ptr().cast::<libc::sock_filter>().cast_mut(),
    };
    const { assert!(size_of::<sock_filter>() == size_of::<libc::sock_filter>()) };
    // SAFETY: `program` points to `length` instructions, which the kernel copies.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            flags,
            &raw const program,
        )
    };
    if answer < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(answer)
}

impl Listener {
    /// Waits for the next call that is not allowed, refuses it and tells it; none where it was
    /// taken back (its thread got a signal, or died) or where nobody is left under the filter.
    pub fn refuse(&self) -> io::Result<Option<Refusal>> {
        // SAFETY: all bits zero is a value of this plain C struct, and what the kernel asks for.
        let mut asked: libc::seccomp_notif = unsafe { std::mem::zeroed() };
        // SAFETY: the kernel writes one struct seccomp_notif, for which there is place.
        let received = unsafe {
            libc::ioctl(
                self.0.as_raw_fd(),
                libc::SECCOMP_IOCTL_NOTIF_RECV,
                &raw mut asked,
            )
        };
        if received < 0 {
            return gone(io::Error::last_os_error());
        }
        let known = usize::try_from(asked.data.nr).ok().and_then(Sysno::new);
        let error = if known.is_some() {
            libc::EPERM
        } else {
            libc::ENOSYS
        };
        let mut answer = libc::seccomp_notif_resp {
            id: asked.id,
            val: 0,
            error: -error,
            flags: 0,
        };
        // SAFETY: the kernel reads one struct seccomp_notif_resp.
        let sent = unsafe {
            libc::ioctl(
                self.0.as_raw_fd(),
                libc::SECCOMP_IOCTL_NOTIF_SEND,
                &raw mut answer,
            )
        };
        if sent < 0 {
            return gone(io::Error::last_os_error());
        }
        Ok(Some(Refusal {
            number: asked.data.nr,
            tid: asked.pid,
        }))
    }
}

fn gone<T>(error: io::Error) -> io::Result<Option<T>> {
    match error.raw_os_error() {
        Some(libc::ENOENT | libc::EINTR) => Ok(None),
        _ => Err(error),
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<OwnedFd> for Listener {
    fn from(listener: OwnedFd) -> Self {
        Self(listener)
    }
}

impl From<Listener> for OwnedFd {
    fn from(listener: Listener) -> Self {
        listener.0
    }
}
