//! What runs one instance of a function, and the words in which it is spoken with.
//!
//! Three programs take part, and each knows only its neighbour:
//!
//! ```text
//! who runs functions  --ask-->  hearth-spawner  --parks-->  hearth-init
//!          `------------------- channel -------------------------^
//! ```
//!
//! - [`ask`]: to the spawner: claim a sandbox, end it, say which there are.
//! - [`message`]: on the [channel](crate::channel) to `hearth-init`: start the function, invoke it.
//!   The spawner is not in the way of payloads, and may be restarted under a sandbox at work.
//! - [`start`]: all that `hearth-init` must know to start a function.
//! - [`spawner`]: asks it, for who may wait.
//! - [`backend`]: what every kind of sandbox does; [`process`]: those made of processes.
//! - [`Resources`]: limits as they are written down and sent.
//! - [`Places`]: where the sockets are.

#[cfg(feature = "host")]
pub mod ask;
#[cfg(feature = "host")]
pub mod backend;
pub mod message;
mod place;
#[cfg(feature = "host")]
pub mod process;
#[cfg(feature = "host")]
mod resources;
#[cfg(feature = "host")]
pub mod spawner;
pub mod start;

pub use place::Places;
#[cfg(feature = "host")]
pub use resources::Resources;
