//! What a guest finds at addresses that are no memory.

mod bus;
mod doorbell;
pub mod line;
pub mod power;
pub mod serial;
pub mod virtio;
pub mod vmgenid;

pub use bus::{Bus, BusError, Device, Effect};
pub use doorbell::{Doorbell, Letterbox, LetterboxError};
