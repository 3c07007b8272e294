//! What a guest finds at addresses that are no memory.

mod bus;

pub use bus::{Bus, BusError, Device, Effect};
