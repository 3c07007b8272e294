//! Real functions in real sandboxes on this kernel, as root: what they see, and what the node sees
//! of them.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod inside;
mod outside;

mod scene;
mod starts;
