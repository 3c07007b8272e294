//! Waiting for a claim: what is said with the spawner before there is one.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;

/// The sandbox can be claimed.
const PARKED: &[u8] = b"p";
/// It cannot be made; why follows.
const ERROR: u8 = b'e';
/// It is claimed.
const CLAIMED: &[u8] = b"c";
/// Bytes of a reason.
const MOST: usize = 1024;

/// The spawner, on a socket that keeps messages apart.
pub(crate) struct Spawner(OwnedFd);

impl Spawner {
    pub(crate) fn new(control: OwnedFd) -> Self {
        Self(control)
    }

    /// Says that the sandbox can be claimed, and waits until it is; whether it is. Where the spawner
    /// is gone, nobody can claim it any more.
    pub(crate) fn wait_for_claim(self) -> io::Result<bool> {
        match rustix::io::write(&self.0, PARKED) {
            Err(Errno::PIPE) => return Ok(false),
            written => written?,
        };
        let mut said = [0; 8];
        loop {
            match rustix::io::read(self.0.as_fd(), &mut said) {
                Ok(length) if said.get(..length) == Some(CLAIMED) => return Ok(true),
                // Reset, where it had not read that we are parked.
                Ok(0) | Err(Errno::CONNRESET) => return Ok(false),
                Ok(_) => return Err(io::ErrorKind::InvalidData.into()),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Says why there is no sandbox.
    pub(crate) fn tell_error(&self, why: &str) {
        let why = why.as_bytes();
        let mut message = vec![ERROR];
        message.extend_from_slice(why.get(..MOST).unwrap_or(why));
        // Where it is gone, there is nobody to tell.
        let _ = rustix::io::write(&self.0, &message);
    }
}
