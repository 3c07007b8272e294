//! hearth's kernel side: one file (or folder) a signal.
//!
//! Only `bpf_probe_read_kernel` and `bpf_probe_read_user` touch memory that is not ours, at
//! offsets that user space read from the running kernel's BTF. Nothing is ever written to a
//! traced process.
#![no_std]
#![no_main]
#![feature(core_intrinsics)]
#![expect(
    internal_features,
    reason = "atomics of the BPF machine: see cold_start/account.rs"
)]

mod cgroup_lock;
mod clock;
mod cold_start;
mod globals;
mod ledger;
mod oom;
mod retransmit;
mod ring;
mod task;

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    // The verifier refuses an object in which this can be reached.
    loop {}
}

/// GPL: the helpers that read kernel memory are for GPL-compatible programs only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 4] = *b"GPL\0";
