//! Linux, begun as a boot loader would: the kernel in memory, its parameters beside it, the
//! processor in long mode at its 64-bit entry.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};

use kvm_bindings::{kvm_regs, kvm_segment, kvm_sregs};
use linux_loader::loader::bootparam::{boot_e820_entry, boot_params};
use linux_loader::loader::bzimage::BzImage;
use linux_loader::loader::elf::Elf;
use linux_loader::loader::{KernelLoader as _, KernelLoaderResult};
use vm_memory::{
    Bytes as _, GuestAddress, GuestMemoryBackend as _, GuestMemoryError, GuestMemoryRegion,
};

use super::acpi;
use crate::device::virtio::Memory;

/// Where things are below 1 MiB. A kernel reads them once, but for the ACPI tables.
const GDT: u64 = 0x500;
const PARAMETERS: u64 = 0x7000;
const STACK: u64 = 0x8ff0;
const PAGE_TABLES: u64 = 0x9000;
const COMMAND_LINE: u64 = 0x2_0000;
/// The first address that is not the kernel's to use, up to 1 MiB.
const RESERVED: u64 = 0x9_fc00;
const ACPI: u64 = 0xe_0000;
/// Where the id of the guest's generation is.
pub const GENERATION: u64 = 0xf_f000;
const MIB: u64 = 1 << 20;

/// Bytes of a command line, the zero at its end included: what Linux reads.
const LONGEST: usize = 2048;
/// From the kernel's first byte, in a bzImage.
const ENTRY_OF_BZIMAGE: u64 = 0x200;

const KERNEL_TYPE_OTHER: u8 = 0xff;
const CAN_USE_HEAP: u8 = 0x80;
const RAM: u32 = 1;
const HEADER: u32 = 0x5372_6448;
const BOOT: u16 = 0xaa55;

/// What to boot.
#[derive(Debug)]
pub struct Linux<'a> {
    /// A bzImage (`vmlinuz`) or an ELF file (`vmlinux`, which starts faster).
    pub kernel: &'a File,
    /// The first file system, if there is one.
    pub initramfs: Option<&'a File>,
    /// What the kernel is told.
    pub command_line: &'a str,
    /// Its devices.
    pub devices: &'a acpi::Described,
}

/// Why there is no guest.
#[derive(Debug, thiserror::Error)]
pub enum LinuxError {
    /// It is no kernel.
    #[error("kernel: {0}; give a bzImage or an ELF file of an x86-64 Linux, uncompressed")]
    Kernel(#[source] linux_loader::loader::Error),
    /// A file cannot be read.
    #[error("{what}: {error}")]
    File {
        /// Which.
        what: &'static str,
        /// Why.
        error: io::Error,
    },
    /// Too long.
    #[error("command line: {0} bytes; it may have {most}", most = LONGEST - 1)]
    CommandLine(usize),
    /// Too large.
    #[error(
        "memory: {what} takes {wanted} bytes and there are {left} for it; give the guest more memory"
    )]
    Memory {
        /// What does not fit.
        what: &'static str,
        /// What it takes.
        wanted: u64,
        /// What is left.
        left: u64,
    },
    /// The guest's memory is not one that Linux begins in.
    #[error("memory at {0:#x}: {1}; the guest's memory must begin at 0")]
    Layout(u64, #[source] GuestMemoryError),
}

/// Puts a guest into fresh memory; the address of its first instruction.
pub fn load(memory: &Memory, linux: &Linux<'_>) -> Result<u64, LinuxError> {
    if linux.command_line.len() >= LONGEST {
        return Err(LinuxError::CommandLine(linux.command_line.len()));
    }
    let (kernel, entry) = kernel(memory, linux.kernel)?;
    let mut parameters = boot_params::default();
    if let Some(header) = kernel.setup_header {
        parameters.hdr = header;
    } else {
        parameters.hdr.header = HEADER;
        parameters.hdr.boot_flag = BOOT;
        parameters.hdr.kernel_alignment = 0x20_0000;
    }
    let header = &mut parameters.hdr;
    header.type_of_loader = KERNEL_TYPE_OTHER;
    header.loadflags |= CAN_USE_HEAP;
    header.cmd_line_ptr = u32::try_from(COMMAND_LINE).unwrap_or(u32::MAX);
    header.cmdline_size = u32::try_from(linux.command_line.len()).unwrap_or(u32::MAX);
    if let Some(initramfs) = linux.initramfs {
        // A compressed kernel unpacks itself within so much.
        let end = kernel.kernel_end.max(end_of_unpacked(header));
        let (at, length) = put_initramfs(memory, initramfs, end)?;
        header.ramdisk_image = at;
        header.ramdisk_size = length;
    }
    parameters.acpi_rsdp_addr = ACPI;
    map(memory, &mut parameters);

    let mut command_line = linux.command_line.as_bytes().to_vec();
    command_line.push(0);
    put(memory, COMMAND_LINE, &command_line)?;
    put(memory, ACPI, &acpi::tables(ACPI, linux.devices))?;
    let written = memory.write_obj(parameters, GuestAddress(PARAMETERS));
    written.map_err(|error| LinuxError::Layout(PARAMETERS, error))?;
    put_page_tables(memory)?;
    for (nr, segment) in segments().into_iter().enumerate() {
        put(
            memory,
            GDT + nr as u64 * 8,
            &descriptor(&segment).to_le_bytes(),
        )?;
    }
    Ok(entry)
}

fn put(memory: &Memory, at: u64, bytes: &[u8]) -> Result<(), LinuxError> {
    let written = memory.write_slice(bytes, GuestAddress(at));
    written.map_err(|error| LinuxError::Layout(at, error))
}

/// The kernel's place and its entry.
fn kernel(memory: &Memory, file: &File) -> Result<(KernelLoaderResult, u64), LinuxError> {
    let unread = |error| LinuxError::File {
        what: "kernel",
        error,
    };
    let mut file = file.try_clone().map_err(unread)?;
    let mut magic = [0; 4];
    file.seek(SeekFrom::Start(0)).map_err(unread)?;
    file.read_exact(&mut magic).map_err(unread)?;
    file.seek(SeekFrom::Start(0)).map_err(unread)?;
    let lowest = Some(GuestAddress(MIB));
    if magic == *b"\x7fELF" {
        let kernel = Elf::load(memory, None, &mut file, lowest).map_err(LinuxError::Kernel)?;
        let entry = kernel.kernel_load.0;
        return Ok((kernel, entry));
    }
    let kernel = BzImage::load(memory, None, &mut file, lowest).map_err(LinuxError::Kernel)?;
    let entry = kernel.kernel_load.0 + ENTRY_OF_BZIMAGE;
    Ok((kernel, entry))
}

fn end_of_unpacked(header: &linux_loader::loader::bootparam::setup_header) -> u64 {
    let from = header.pref_address;
    from.saturating_add(header.init_size.into())
}

/// At the end of the memory below 4 GiB: nobody else wants it there.
fn put_initramfs(memory: &Memory, file: &File, after: u64) -> Result<(u32, u32), LinuxError> {
    let unread = |error| LinuxError::File {
        what: "initramfs",
        error,
    };
    let wanted = file.metadata().map_err(unread)?.len();
    let first = memory.find_region(GuestAddress(0));
    let end = first.map_or(0, GuestMemoryRegion::len).min(u32::MAX.into());
    let no_room = || LinuxError::Memory {
        what: "initramfs",
        wanted,
        left: end.saturating_sub(after),
    };
    let at = end.checked_sub(wanted).ok_or_else(no_room)? & !0xfff;
    let length = usize::try_from(wanted).map_err(|_| no_room())?;
    if at < after {
        return Err(no_room());
    }
    let mut file = file.try_clone().map_err(unread)?;
    file.seek(SeekFrom::Start(0)).map_err(unread)?;
    let read = memory.read_exact_volatile_from(GuestAddress(at), &mut file, length);
    read.map_err(|error| unread(io::Error::other(error)))?;
    let too_far = |_| no_room();
    Ok((
        u32::try_from(at).map_err(too_far)?,
        u32::try_from(wanted).map_err(too_far)?,
    ))
}

/// What is memory, and of that, what is the kernel's.
fn map(memory: &Memory, parameters: &mut boot_params) {
    let mut entries = Vec::new();
    for region in memory.iter() {
        let (start, end) = (region.start_addr().0, region.start_addr().0 + region.len());
        if start == 0 {
            entries.push((0, RESERVED.min(end)));
            entries.push((MIB, end));
        } else {
            entries.push((start, end));
        }
    }
    entries.retain(|(start, end)| start < end);
    for (entry, (start, end)) in parameters.e820_table.iter_mut().zip(&entries) {
        *entry = boot_e820_entry {
            addr: *start,
            size: end - start,
            r#type: RAM,
        };
    }
    let most = parameters.e820_table.len();
    parameters.e820_entries = u8::try_from(entries.len().min(most)).unwrap_or(0);
}

/// The first GiB at its own addresses, in pages of 2 MiB.
fn put_page_tables(memory: &Memory) -> Result<(), LinuxError> {
    const PRESENT_AND_WRITABLE: u64 = 3;
    const LARGE: u64 = 1 << 7;
    let (second, third) = (PAGE_TABLES + 0x1000, PAGE_TABLES + 0x2000);
    put(
        memory,
        PAGE_TABLES,
        &(second | PRESENT_AND_WRITABLE).to_le_bytes(),
    )?;
    put(
        memory,
        second,
        &(third | PRESENT_AND_WRITABLE).to_le_bytes(),
    )?;
    let pages = (0..512_u64).map(|nr| nr << 21 | PRESENT_AND_WRITABLE | LARGE);
    let bytes: Vec<u8> = pages.flat_map(u64::to_le_bytes).collect();
    put(memory, third, &bytes)
}

/// Nothing, nothing, code at 0x10 and data at 0x18, as Linux wants them.
fn segments() -> [kvm_segment; 4] {
    let code = kvm_segment {
        base: 0,
        limit: 0xffff_ffff,
        selector: 0x10,
        type_: 0b1011,
        present: 1,
        s: 1,
        l: 1,
        g: 1,
        ..kvm_segment::default()
    };
    let data = kvm_segment {
        selector: 0x18,
        type_: 0b0011,
        l: 0,
        db: 1,
        ..code
    };
    [kvm_segment::default(), kvm_segment::default(), code, data]
}

/// As it stands in the table of descriptors.
fn descriptor(segment: &kvm_segment) -> u64 {
    if segment.present == 0 {
        return 0;
    }
    let limit = u64::from(segment.limit >> 12);
    let access = u64::from(segment.type_) | u64::from(segment.s) << 4 | 1 << 7;
    let flags = u64::from(segment.l) << 1 | u64::from(segment.db) << 2 | u64::from(segment.g) << 3;
    limit & 0xffff | access << 40 | (limit >> 16 & 0xf) << 48 | flags << 52
}

/// The registers with which the guest begins.
#[must_use]
pub fn registers(entry: u64) -> kvm_regs {
    kvm_regs {
        rip: entry,
        rsi: PARAMETERS,
        rsp: STACK,
        rbp: STACK,
        rflags: 1 << 1,
        ..kvm_regs::default()
    }
}

/// The special registers with which it begins, from those of a new processor.
#[must_use]
pub fn special_registers(of_new: kvm_sregs) -> kvm_sregs {
    const PROTECTED: u64 = 1;
    const PAGING: u64 = 1 << 31;
    const PHYSICAL_ADDRESS_EXTENSION: u64 = 1 << 5;
    const LONG_MODE: u64 = 1 << 8 | 1 << 10;
    let [_, _, code, data] = segments();
    let mut registers = of_new;
    registers.cs = code;
    for segment in [
        &mut registers.ds,
        &mut registers.es,
        &mut registers.fs,
        &mut registers.gs,
        &mut registers.ss,
    ] {
        *segment = data;
    }
    registers.gdt.base = GDT;
    registers.gdt.limit = 4 * 8 - 1;
    registers.idt.base = 0;
    registers.idt.limit = 0;
    registers.cr3 = PAGE_TABLES;
    registers.cr0 |= PROTECTED | PAGING;
    registers.cr4 |= PHYSICAL_ADDRESS_EXTENSION;
    registers.efer |= LONG_MODE;
    registers
}
