//! Virtio devices: one transport (modern MMIO), and what hangs on it.
//!
//! All that a driver says is hostile: its requests are cut by [`queue`] before a device sees them,
//! and none of it makes a device panic, loop or allocate without bound.

use vm_memory::GuestMemoryMmap;

pub mod block;
pub mod channel;
#[cfg(test)]
mod driver;
pub mod queue;
pub mod rng;
pub mod transport;

use queue::Queues;

/// The memory that drivers and devices share.
pub type Memory = GuestMemoryMmap<()>;

/// What a kind of device does beyond what all of them do.
pub trait Kind {
    /// Its number in the specification.
    const ID: u32;
    /// The largest size of each of its queues: powers of two.
    const QUEUES: &'static [u16];
    /// What [`save`](Self::save) gives.
    type State;

    /// The features that it offers, beside those of the transport.
    fn features(&self) -> u64;

    /// Its configuration space.
    fn configuration(&self) -> Vec<u8>;

    /// The driver has forgotten all and begins anew.
    fn reset(&mut self);

    /// The driver has put something into this queue.
    fn notified(&mut self, queue: usize, queues: &mut Queues<'_>);

    /// What it must know to go on elsewhere. Its configuration is told anew there.
    fn save(&self) -> Self::State;

    /// Goes on from there.
    fn restore(&mut self, state: Self::State) -> Result<(), Unfit>;
}

/// A saved state does not fit this machine.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {value}, but {needed}")]
pub struct Unfit {
    /// Which part of the state.
    pub field: &'static str,
    /// What it says.
    pub value: String,
    /// What would fit.
    pub needed: String,
}

impl Unfit {
    pub(crate) fn new(
        field: &'static str,
        value: impl std::fmt::Display,
        needed: impl Into<String>,
    ) -> Self {
        Self {
            field,
            value: value.to_string(),
            needed: needed.into(),
        }
    }
}
