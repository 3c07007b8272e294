//! Any bytes as a file of the audit of healings.
#![no_main]

#[path = "../captures.rs"]
#[allow(dead_code, reason = "the other target uses the rest")]
mod captures;

libfuzzer_sys::fuzz_target!(|data: &[u8]| captures::audit(data));
