//! The interrupt line of a device.

use std::io;

use vm_superio::Trigger;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// An edge-triggered interrupt line: who registers its descriptor with KVM turns each
/// [`raise`](Self::raise) into one edge.
#[derive(Debug)]
pub struct Line(EventFd);

impl Line {
    /// A line that leads nowhere yet.
    pub fn new() -> io::Result<Self> {
        EventFd::new(EFD_NONBLOCK).map(Self)
    }

    /// For the one that registers it with KVM.
    #[must_use]
    pub fn descriptor(&self) -> &EventFd {
        &self.0
    }

    /// The same line, for another holder.
    pub fn share(&self) -> io::Result<Self> {
        self.0.try_clone().map(Self)
    }

    /// One edge. It cannot fail but for a counter at its end, where edges wait already.
    pub fn raise(&self) {
        let _ = self.0.write(1);
    }
}

impl Trigger for Line {
    type E = std::convert::Infallible;

    fn trigger(&self) -> Result<(), Self::E> {
        self.raise();
        Ok(())
    }
}
