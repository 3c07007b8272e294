//! Any bytes as a capture, and any records as kills.
#![no_main]

#[path = "../captures.rs"]
#[allow(dead_code, reason = "the other target uses the rest")]
mod captures;

libfuzzer_sys::fuzz_target!(|data: &[u8]| captures::capture(data));
