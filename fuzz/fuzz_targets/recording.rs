//! Any bytes as what a node recorded of its pools.
#![no_main]

#[path = "../runtime.rs"]
#[allow(dead_code, reason = "the other targets use the rest")]
mod runtime;

libfuzzer_sys::fuzz_target!(|data: &[u8]| runtime::recording(data));
