//! The channel between who runs a sandbox and `hearth-init` inside of it: one framed stream, over
//! a Unix socket here, over a virtio device into a microVM.
//!
//! A frame is a header of [`HEADER`] bytes, a *head* (a message, in JSON) and a *body* (the
//! payload of a function, lines of its log: opaque bytes). Nobody at either end is trusted with
//! sizes: both are capped before anything is reserved for them.

mod connection;
mod frame;

pub use connection::{Connection, ReceiveError, Received, SendError};
pub use frame::{Decoder, Frame, FrameError, HEADER, MAX_BODY, MAX_HEAD};
