//! Any bytes as the manifest of a snapshot.
#![no_main]

#[path = "../runtime.rs"]
#[allow(dead_code, reason = "the other targets use the rest")]
mod runtime;

libfuzzer_sys::fuzz_target!(|data: &[u8]| runtime::manifest(data));
