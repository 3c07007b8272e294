//! One process a microVM: boots, saves and restores it, on `/dev/kvm`.
//!
//! - [`boot`]: what a guest finds in its memory when it begins.
//! - [`device`]: what a guest finds at addresses that are no memory.

pub mod boot;
pub mod device;
