//! Any bytes as the spawner's journal.
#![no_main]

#[path = "../runtime.rs"]
#[allow(dead_code, reason = "the other targets use the rest")]
mod runtime;

libfuzzer_sys::fuzz_target!(|data: &[u8]| runtime::journal(data));
