//! Any bytes as a record of the ring.
#![no_main]

#[path = "../bodies.rs"]
#[allow(dead_code, reason = "the other target uses the rest")]
mod bodies;

libfuzzer_sys::fuzz_target!(|data: &[u8]| bodies::decode(data));
