//! Hits that the kernel did not run a program for, because one of ours was already running on
//! that CPU. They are in no row of the ledger, so the kernel's own count of them is told beside.

use std::{
    io,
    mem::size_of,
    os::fd::{AsFd as _, AsRawFd as _},
};

use aya::{Ebpf, programs::Program};
use aya_obj::generated::{bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, bpf_prog_info};

/// The third member of the union `bpf_attr`, for `BPF_OBJ_GET_INFO_BY_FD`.
#[repr(C)]
struct InfoByFd {
    program: u32,
    info_bytes: u32,
    info: u64,
}

/// By program that is loaded, its missed hits.
#[must_use]
pub fn misses(ebpf: &Ebpf) -> Vec<(String, u64)> {
    let mut misses: Vec<(String, u64)> = ebpf
        .programs()
        .filter_map(|(name, program)| Some((name.to_owned(), missed(program)?)))
        .collect();
    misses.sort();
    misses
}

fn missed(program: &Program) -> Option<u64> {
    // A program that was not wanted is not loaded, and has no descriptor.
    let fd = program.fd().ok()?;
    info_of(fd.as_fd().as_raw_fd())
        .ok()
        .map(|info| info.recursion_misses)
}

fn info_of(fd: i32) -> io::Result<bpf_prog_info> {
    // SAFETY: integers and addresses only; all zeros asks for none of the variable parts.
    let mut info: bpf_prog_info = unsafe { std::mem::zeroed() };
    let bytes = |size: usize| u32::try_from(size).map_err(io::Error::other);
    let attributes = InfoByFd {
        program: u32::try_from(fd).map_err(io::Error::other)?,
        info_bytes: bytes(size_of::<bpf_prog_info>())?,
        info: (&raw mut info) as u64,
    };
    // SAFETY: both structures outlive the call, and their sizes are told.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_OBJ_GET_INFO_BY_FD,
            &raw const attributes,
            size_of::<InfoByFd>(),
        )
    };
    if result == 0 {
        Ok(info)
    } else {
        Err(io::Error::last_os_error())
    }
}
