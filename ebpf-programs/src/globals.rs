//! What user space decides before the programs are loaded. The verifier knows these values,
//! and removes the branches that they rule out.

use hearth_abi::{Config, FILE_BYTES, Offsets, OomConfig};

/// Where the running kernel keeps the members that are read.
#[unsafe(no_mangle)]
pub static OFFSETS: Offsets = Offsets::NONE;

/// How the daemon or `hearth trace` wants it.
#[unsafe(no_mangle)]
pub static CONFIG: Config = Config {
    every_exec: 0,
    exec_opens: 0,
    cgroup_opens: 0,
    ready: 0,
    wake_bytes: u32::MAX,
};

/// Path of the `file` ready rule, padded with zeros, in words.
#[unsafe(no_mangle)]
pub static READY_FILE: [u64; FILE_BYTES / 8] = [0; FILE_BYTES / 8];

/// What an OOM kill's capture is to hold.
#[unsafe(no_mangle)]
pub static OOM: OomConfig = OomConfig {
    stack_bytes: 0,
    threads: 0,
    cpus: 1,
    unused: 0,
    killer_begin: 0,
    killer_end: 0,
    limit_begin: 0,
    limit_end: 0,
};

/// Reads one member of [`OFFSETS`].
macro_rules! offset {
    ($name:ident) => {
        // SAFETY: a static of this object; volatile, because its value is replaced at load.
        unsafe { core::ptr::read_volatile(&raw const $crate::globals::OFFSETS.$name) }
    };
}

/// Reads one member of [`CONFIG`].
macro_rules! config {
    ($name:ident) => {
        // SAFETY: a static of this object; volatile, because its value is replaced at load.
        unsafe { core::ptr::read_volatile(&raw const $crate::globals::CONFIG.$name) }
    };
}

/// Reads one member of [`OOM`].
macro_rules! oom_config {
    ($name:ident) => {
        // SAFETY: a static of this object; volatile, because its value is replaced at load.
        unsafe { core::ptr::read_volatile(&raw const $crate::globals::OOM.$name) }
    };
}

pub(crate) use {config, offset, oom_config};
