//! The flat guest: in long mode at privilege level 3, all memory mapped where it is, no descriptor
//! tables, no exceptions. There are hosts whose KVM runs nothing else natively.

use std::fs::File;
use std::io;

use hearth_flat_guest::address::DOORBELL;
use kvm_bindings::{kvm_regs, kvm_segment, kvm_sregs, kvm_xcrs};
use linux_loader::loader::{Elf, KernelLoader as _};
use vm_memory::{Bytes as _, GuestAddress, GuestMemoryMmap};

use crate::kvm::Host;
use crate::machine::Machine;
use crate::memory::{BEHIND_HOLE, HOLE};

/// Of page tables, one page after the other.
const TABLES: u64 = 0x1_0000;
/// Behind the stack, which grows down to the tables.
const STACK: u64 = 0x10_0000;
/// First address at which the program may be.
const PROGRAM: u64 = 0x20_0000;

const GIB: u64 = 1 << 30;
const LARGE_PAGE: u64 = 2 << 20;
const PAGE: u64 = 4096;
const ENTRIES: u64 = 512;

/// Bits of page tables.
const PRESENT: u64 = 1;
const WRITABLE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const UNCACHED: u64 = 1 << 4;
const LARGE: u64 = 1 << 7;

/// States of the processor that the guest switches on: x87, SSE and AVX.
const VECTOR_STATES: u64 = 0b111;
/// The bit of CR4 for them.
const EXTENDED_STATES: u64 = 1 << 18;

/// Why the guest does not begin.
#[derive(Debug, thiserror::Error)]
pub enum FlatBootError {
    /// Not the program of a guest.
    #[error("the flat guest's program cannot be loaded: {0}")]
    Program(String),
    /// There is not enough memory for it.
    #[error("memory of {0} bytes: the flat guest takes 4 MiB at least")]
    Memory(u64),
    /// Its memory cannot be written.
    #[error("the flat guest's memory: {0}")]
    Write(#[from] vm_memory::GuestMemoryError),
    /// KVM refuses such a processor.
    #[error("the flat guest's processor: {0}")]
    Processor(#[source] io::Error),
}

/// Puts the program into the machine's memory, and its processor at its beginning.
pub fn load(host: &Host, machine: &Machine, program: &mut File) -> Result<(), FlatBootError> {
    let memory = machine.memory();
    if memory.size() < 2 * PROGRAM {
        return Err(FlatBootError::Memory(memory.size()));
    }
    let lowest = Some(GuestAddress(PROGRAM));
    let loaded = Elf::load(memory.guest(), None, program, lowest)
        .map_err(|error| FlatBootError::Program(error.to_string()))?;
    begin_at(host, machine, loaded.kernel_load.0, Level::User)
}

/// What the guest's code may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// As a kernel: privilege level 0.
    Kernel,
    /// As a program: privilege level 3.
    User,
}

/// Puts the processor before the instruction at this address.
pub fn begin_at(
    host: &Host,
    machine: &Machine,
    entry: u64,
    level: Level,
) -> Result<(), FlatBootError> {
    let memory = machine.memory();
    let tables = map(memory.guest(), memory.size())?;
    let states = host.extended_states() & VECTOR_STATES;
    set_up(machine, entry, level, tables, states)
        .map_err(|error| FlatBootError::Processor(error.into()))
}

/// All memory and the doorbell, each at its own address. Gives the address of the first table.
fn map(memory: &GuestMemoryMmap, size: u64) -> Result<u64, vm_memory::GuestMemoryError> {
    let [top, second, third] = [TABLES, TABLES + PAGE, TABLES + 2 * PAGE];
    let to = |table: u64| table | PRESENT | WRITABLE | USER;
    let put = |table: u64, entry: u64, value: u64| {
        memory.write_obj(value, GuestAddress(table + entry * size_of::<u64>() as u64))
    };
    put(top, 0, to(second))?;
    // What lies in the hole is left out, but for the doorbell.
    let last = if size > HOLE {
        size - HOLE + BEHIND_HOLE
    } else {
        size
    };
    for gib in 0..last.max(BEHIND_HOLE).div_ceil(GIB) {
        let table = third + gib * PAGE;
        put(second, gib, to(table))?;
        for entry in 0..ENTRIES {
            let address = gib * GIB + entry * LARGE_PAGE;
            let is_memory = address < size.min(HOLE) || (BEHIND_HOLE..last).contains(&address);
            if is_memory {
                put(table, entry, to(address) | LARGE)?;
            } else if address == DOORBELL {
                put(table, entry, to(address) | LARGE | UNCACHED)?;
            }
        }
    }
    Ok(top)
}

fn set_up(
    machine: &Machine,
    entry: u64,
    level: Level,
    tables: u64,
    states: u64,
) -> Result<(), kvm_ioctls::Error> {
    let vcpu = machine.processor();
    let mut sregs = vcpu.get_sregs()?;
    long_mode(&mut sregs, level, tables);
    if states != 0 {
        sregs.cr4 |= EXTENDED_STATES;
    }
    vcpu.set_sregs(&sregs)?;
    if states != 0 {
        vcpu.set_xcrs(&xcr0(states))?;
    }
    vcpu.set_regs(&kvm_regs {
        rip: entry,
        // As after a call.
        rsp: STACK - size_of::<u64>() as u64,
        // The bit that is always set.
        rflags: 1 << 1,
        ..Default::default()
    })
}

/// Paging, vector instructions, and a processor that is at its privilege level already.
fn long_mode(sregs: &mut kvm_sregs, level: Level, tables: u64) {
    const PROTECTED: u64 = 1 | 1 << 1 | 1 << 4 | 1 << 5;
    const WRITE_PROTECT: u64 = 1 << 16;
    const PAGING: u64 = 1 << 31;
    const PAE: u64 = 1 << 5;
    const VECTORS: u64 = 1 << 9 | 1 << 10;
    const LONG_MODE: u64 = 1 << 8 | 1 << 10;
    sregs.cr3 = tables;
    sregs.cr0 = PROTECTED | WRITE_PROTECT | PAGING;
    sregs.cr4 = PAE | VECTORS;
    sregs.efer = LONG_MODE;
    let dpl = match level {
        Level::Kernel => 0,
        Level::User => 3,
    };
    let data = kvm_segment {
        base: 0,
        limit: u32::MAX,
        selector: 3 << 3 | u16::from(dpl),
        // Data that can be written and was used.
        type_: 3,
        present: 1,
        dpl,
        db: 1,
        s: 1,
        g: 1,
        ..Default::default()
    };
    sregs.cs = kvm_segment {
        selector: 4 << 3 | u16::from(dpl),
        // Code that can be read and was used.
        type_: 11,
        db: 0,
        l: 1,
        ..data
    };
    (sregs.ds, sregs.es, sregs.ss, sregs.fs, sregs.gs) = (data, data, data, data, data);
    // There are no descriptors: an exception shuts the processor down.
    sregs.idt.limit = 0;
    sregs.gdt.limit = 0;
}

fn xcr0(value: u64) -> kvm_xcrs {
    let mut all = kvm_xcrs {
        nr_xcrs: 1,
        ..Default::default()
    };
    all.xcrs[0].value = value;
    all
}
