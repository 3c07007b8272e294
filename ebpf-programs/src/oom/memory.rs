//! User memory of a victim: its command line, and its stack where that was asked for.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::bpf_probe_read_user;
use hearth_abi::{Fate, OOM_MEMORY_BYTES, OomContent, OomMemory, OomRecord, OomSource, Probe};

use super::mapping::Whose;
use crate::{
    globals::{offset, oom_config},
    ledger, ring,
    task::Task,
};

/// The arguments of the program.
#[inline(always)]
pub fn command_line(whose: &Whose) -> OomSource {
    let mm = Task::current().mm();
    let begin: u64 = mm.get(offset!(mm_arg_start));
    let end: u64 = mm.get(offset!(mm_arg_end));
    if begin == 0 || end <= begin {
        return OomSource::None;
    }
    tell(
        whose,
        OomContent::CommandLine,
        begin,
        end - begin,
        OOM_MEMORY_BYTES as u64,
    )
}

/// The stack from its pointer on.
#[inline(always)]
pub fn stack(whose: &Whose, pointer: u64, end: u64) -> OomSource {
    let wanted = oom_config!(stack_bytes);
    if wanted == 0 {
        return OomSource::Off;
    }
    if end <= pointer {
        return OomSource::Unreadable;
    }
    tell(
        whose,
        OomContent::Stack,
        pointer,
        end - pointer,
        u64::from(wanted),
    )
}

/// Makes the record of `available` bytes at `address`, of which `wanted` are asked for.
#[inline(never)]
fn tell(
    whose: &Whose,
    content: OomContent,
    address: u64,
    available: u64,
    wanted: u64,
) -> OomSource {
    let fate = ledger::nested(Probe::OomMemory, || {
        ring::capture_if::<OomMemory>(|memory| {
            // SAFETY: reserved memory of the ring of this size, all zero.
            let memory = unsafe { &mut *memory };
            memory.kind = OomRecord::Memory as u16;
            memory.content = content as u16;
            memory.id = whose.id;
            memory.tid = whose.tid;
            memory.tgid = whose.tgid;
            memory.start_boottime = whose.start_boottime;
            memory.address = address;
            memory.available = available;
            let mut length = if available < wanted {
                available
            } else {
                wanted
            };
            if length > OOM_MEMORY_BYTES as u64 {
                length = OOM_MEMORY_BYTES as u64;
            }
            memory.length = length as u32;
            // SAFETY: memory of at least this size; the source is checked by the helper.
            let failed = unsafe {
                bpf_probe_read_user(
                    (&raw mut memory.bytes).cast(),
                    length as u32,
                    address as *const c_void,
                )
            };
            failed == 0
        })
    });
    match fate {
        Fate::Submitted => OomSource::Read,
        Fate::DroppedRing => OomSource::Lost,
        _ => OomSource::Unreadable,
    }
}
