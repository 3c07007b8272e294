//! One process a microVM: boots, saves and restores it, on `/dev/kvm`.
//!
//! - [`device`]: what a guest finds at addresses that are no memory.

pub mod device;
