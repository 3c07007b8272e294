//! Any bytes as what a driver puts into the queues of a device.
#![no_main]

#[path = "../vmm.rs"]
mod vmm;

libfuzzer_sys::fuzz_target!(|data: &[u8]| vmm::descriptors(data));
