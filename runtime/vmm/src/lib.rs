//! One process a microVM: boots, saves and restores it, on `/dev/kvm`.
//!
//! - [`boot`]: what a guest finds when it begins.
//! - [`device`]: what it finds at addresses that are no memory.
//! - [`flat`]: the guest that needs no kernel, spoken with.
//! - [`kvm`]: what is said to KVM.
//! - [`linux`]: a machine with Linux and its devices.
//! - [`machine`]: made, run, saved, restored.
//! - [`memory`]: what a guest finds at all other addresses.
//! - [`probe`]: what this host's KVM can do, tried.

pub mod boot;
pub mod device;
pub mod flat;
pub mod kvm;
pub mod linux;
pub mod machine;
pub mod memory;
pub mod probe;
