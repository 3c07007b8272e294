//! Records of the kernel to the parts of a capture: numbers to bytes, sources to reasons.

use std::collections::BTreeMap;

use hearth_abi::{
    OomConstraint, OomKill, OomKillField, OomMemory, OomSource, OomTask, OomThread, OomThreadField,
    OomVma, oom_kill, oom_vma,
};

use super::address::Address;
use super::model::{
    Absent, Cgroup, Constraint, Frame, Kill, Known, Mapping, Memory, NO_CODE, Reason, Thread, Vma,
    VmaFile, Window,
};
use crate::observe::text::until_zero;
use crate::time::Boottime;

/// Registers in the order of `struct pt_regs` of `x86_64`.
const REGISTERS: [&str; 21] = [
    "r15", "r14", "r13", "r12", "rbp", "rbx", "r11", "r10", "r9", "r8", "rax", "rcx", "rdx", "rsi",
    "rdi", "orig_rax", "rip", "cs", "rflags", "rsp", "ss",
];
/// Bits that number a minor device inside of the kernel.
const MINOR_BITS: u32 = 20;
/// The kernel's word for no limit is `LONG_MAX` in pages, give or take a page.
const NO_LIMIT: u64 = (i64::MAX as u64 >> 12) - 1;

/// Why a field is not there, or that it is.
fn why(source: u8) -> Option<Absent> {
    let (reason, detail) = match OomSource::from_u8(source) {
        Some(OomSource::Read | OomSource::Derived | OomSource::Approximate) => return None,
        Some(OomSource::NotOnThisKernel) => (Reason::Kernel, "this kernel does not have it"),
        Some(OomSource::NotCurrent) => (
            Reason::NotRunning,
            "only the running task can be asked, and the victim was not running",
        ),
        Some(OomSource::Unreadable) => (Reason::Unreadable, "the kernel side could not read it"),
        Some(OomSource::OutOfReach) => (
            Reason::Kernel,
            "the probe that this kernel allows is not given it",
        ),
        Some(OomSource::Off) => (Reason::Off, "it was not asked for"),
        Some(OomSource::None) => (Reason::NotApplicable, "there is none"),
        Some(OomSource::Lost) => (Reason::Lost, "there was no room for its record"),
        None => (
            Reason::Unreadable,
            "the record has a source that this build does not know",
        ),
    };
    Some(Absent::new(reason, detail))
}

fn known<T>(source: u8, value: T) -> Known<T> {
    why(source).map_or(Known::Value(value), Known::Absent)
}

fn pages(count: u64) -> u64 {
    count.saturating_mul(rustix::param::page_size() as u64)
}

fn limit(source: u8, count: u64) -> Known<u64> {
    if why(source).is_none() && count >= NO_LIMIT {
        return Known::absent(Reason::NotApplicable, "there is no limit");
    }
    known(source, pages(count))
}

/// Why it killed.
pub(super) fn kill(record: &OomKill) -> Kill {
    let source = |field: OomKillField| record.sources[field as usize];
    let constraint = match OomConstraint::from_u16(record.constraint) {
        _ if why(source(OomKillField::Constraint)).is_some() => Constraint::Unknown,
        Some(OomConstraint::None) => Constraint::Global,
        Some(OomConstraint::Cpuset) => Constraint::Cpuset,
        Some(OomConstraint::MemoryPolicy) => Constraint::MemoryPolicy,
        Some(OomConstraint::Memcg) => Constraint::Cgroup,
        None => Constraint::Unknown,
    };
    let asked = u32::try_from(record.order)
        .ok()
        .and_then(|order| 1_u64.checked_shl(order));
    let inexact = OomKillField::ALL.into_iter().filter_map(|field| {
        let how = OomSource::from_u8(source(field))?;
        matches!(how, OomSource::Derived | OomSource::Approximate)
            .then(|| (field.name().to_owned(), how.name().to_owned()))
    });
    Kill {
        constraint,
        limit_bytes: limit(source(OomKillField::Usage), record.limit_pages),
        usage_bytes: known(source(OomKillField::Usage), pages(record.usage_pages)),
        swap_limit_bytes: limit(source(OomKillField::SwapUsage), record.swap_limit_pages),
        swap_usage_bytes: known(
            source(OomKillField::SwapUsage),
            pages(record.swap_usage_pages),
        ),
        swap_with_memory: record.flags & oom_kill::MEMSW != 0,
        total_bytes: known(source(OomKillField::Points), pages(record.total_pages)),
        points: known(source(OomKillField::Points), record.points),
        asked_bytes: match (why(source(OomKillField::Request)), asked) {
            (Some(absent), _) => Known::Absent(absent),
            (None, Some(count)) => Known::Value(pages(count)),
            // `sysrq f` and the like ask for nothing.
            (None, None) => Known::absent(Reason::NotApplicable, "nothing was asked for"),
        },
        gfp: known(source(OomKillField::Request), Address(record.gfp.into())),
        group: (record.group != 0).then_some(Boottime(record.group)),
        inexact: inexact.collect(),
    }
}

/// What the victim's memory was made of.
pub(super) fn memory(record: &OomKill) -> Memory {
    let source = |field: OomKillField| record.sources[field as usize];
    let rss = source(OomKillField::Rss);
    Memory {
        anon_bytes: known(rss, pages(record.rss_anon_pages)),
        file_bytes: known(rss, pages(record.rss_file_pages)),
        shmem_bytes: known(rss, pages(record.rss_shmem_pages)),
        swap_bytes: known(rss, pages(record.swap_pages)),
        page_table_bytes: known(source(OomKillField::PageTables), record.page_table_bytes),
        virtual_bytes: known(source(OomKillField::TotalVm), pages(record.total_vm_pages)),
    }
}

/// The victim's user id.
pub(super) fn uid(record: &OomKill) -> Known<u32> {
    known(record.sources[OomKillField::Uid as usize], record.uid)
}

/// Its `oom_score_adj`.
pub(super) fn adjustment(record: &OomKill) -> Known<i32> {
    let source = record.sources[OomKillField::Adjustment as usize];
    known(source, record.oom_score_adj)
}

/// What the asker was doing in the kernel.
pub(super) fn asker_stack(record: &OomKill) -> Known<Vec<Address>> {
    let source = record.sources[OomKillField::AskerStack as usize];
    known(source, addresses(&record.asker_stack, record.asker_frames))
}

/// A task's name.
pub(super) fn comm(task: &OomTask) -> String {
    until_zero(&task.comm).into_owned()
}

/// A cgroup, of whose path `path` is known.
pub(super) fn cgroup(id: u64, path: Option<&str>) -> Cgroup {
    let path = path.map(str::to_owned).ok_or_else(|| match id {
        0 => Absent::new(Reason::NotApplicable, "no cgroup is concerned"),
        _ => Absent::new(Reason::NotTold, "no record names this cgroup"),
    });
    Cgroup {
        id,
        path: path.into(),
    }
}

/// What the kill itself tells of the victim's own thread, where that thread told nothing.
pub(super) fn thread_at_kill(record: &OomKill) -> Thread {
    let source = |field: OomKillField| record.sources[field as usize];
    let late = || "the thread did not come to its exit in time, or its record was lost";
    Thread {
        tid: record.victim.tid,
        comm: comm(&record.victim),
        at: Boottime(record.id),
        own_context: false,
        registers: known(
            source(OomKillField::Registers),
            registers(&record.registers),
        ),
        user_stack: Known::absent(Reason::NotTold, late()),
        kernel_stack: known(
            source(OomKillField::VictimStack),
            addresses(&record.victim_stack, record.victim_frames),
        ),
        leaf: Known::absent(Reason::NotTold, late()),
        stack_window: Known::absent(Reason::NotTold, late()),
    }
}

/// One thread, with the window of its stack if there is one.
pub(super) fn thread(
    record: &OomThread,
    mappings: &[Mapping],
    window: Option<&OomMemory>,
) -> Thread {
    let source = |field: OomThreadField| record.sources[field as usize];
    let frame = |ip: u64, is_unmapped: bool| Frame {
        ip: Address(ip),
        mapping: if is_unmapped {
            Known::absent(Reason::NotApplicable, NO_CODE)
        } else {
            mapping_of(ip, mappings, source(OomThreadField::Mappings))
        },
    };
    let stack = &record.user_stack[..record.user_stack.len().min(record.user_frames as usize)];
    let stack = stack.iter().enumerate().map(|(index, &ip)| {
        let unmapped = record.unmapped.get(index / 64).copied().unwrap_or(0);
        frame(ip, unmapped >> (index % 64) & 1 != 0)
    });
    let no_window = || {
        // It was read: only its own record can say what it was.
        let lost = || Absent::new(Reason::Lost, "the record of it was lost");
        why(source(OomThreadField::StackMemory)).unwrap_or_else(lost)
    };
    Thread {
        tid: record.task.tid,
        comm: comm(&record.task),
        at: Boottime(record.boottime_ns),
        own_context: true,
        registers: known(
            source(OomThreadField::Registers),
            registers(&record.registers),
        ),
        user_stack: known(source(OomThreadField::UserStack), stack.collect()),
        kernel_stack: known(
            source(OomThreadField::KernelStack),
            addresses(&record.kernel_stack, record.kernel_frames),
        ),
        leaf: if why(source(OomThreadField::Leaf)).is_none() && record.leaf == 0 {
            Known::absent(
                Reason::NotApplicable,
                "the word there is no address of code",
            )
        } else {
            known(source(OomThreadField::Leaf), frame(record.leaf, false))
        },
        stack_window: window.map(self::window).ok_or_else(no_window).into(),
    }
}

/// Why there is no command line, as the thread that was to tell it says; `None` where it was not
/// to, or has told it.
pub(super) fn no_command(record: &OomThread) -> Option<Absent> {
    let why = why(record.sources[OomThreadField::CommandLine as usize])?;
    (why.reason != Reason::Off).then_some(why)
}

/// A mapping as the kernel told it; where its file is on this node is not known yet.
pub(super) fn mapping(record: &OomVma) -> Mapping {
    let is_file = record.flags & oom_vma::FILE != 0;
    let letter = |bit: u64, letter| {
        if record.vm_flags & bit != 0 {
            letter
        } else {
            '-'
        }
    };
    let shared = if record.vm_flags & 8 != 0 { 's' } else { 'p' };
    let unknown = || Known::absent(Reason::NotApplicable, "it maps no file");
    Mapping {
        vma: Vma {
            start: record.start,
            end: record.end,
            perms: [letter(1, 'r'), letter(2, 'w'), letter(4, 'x'), shared]
                .iter()
                .collect(),
            offset: pages(record.page_offset),
            file: is_file.then_some(VmaFile {
                major: record.device >> MINOR_BITS,
                minor: record.device & ((1 << MINOR_BITS) - 1),
                inode: record.inode,
            }),
            name: path(record),
        },
        path: unknown(),
        build_id: unknown(),
    }
}

/// The path that the process sees, out of names from the file up to its root; `...` stands for
/// directories that were cut.
fn path(record: &OomVma) -> String {
    let names = &record.names[..record.names.len().min(record.names_length as usize)];
    let names = names
        .split(|&byte| byte == 0)
        .filter(|name| !name.is_empty());
    let mut names: Vec<_> = names.map(String::from_utf8_lossy).collect();
    if names.is_empty() {
        return String::new();
    }
    names.reverse();
    let above = if record.flags & oom_vma::NAMES_CUT != 0 {
        "..."
    } else {
        ""
    };
    format!("{above}/{}", names.join("/"))
}

fn mapping_of(ip: u64, mappings: &[Mapping], source: u8) -> Known<u32> {
    let found = mappings
        .iter()
        .position(|mapping| (mapping.vma.start..mapping.vma.end).contains(&ip));
    match (
        found.and_then(|index| u32::try_from(index).ok()),
        OomSource::from_u8(source),
    ) {
        (Some(index), _) if mappings[index as usize].vma.is_code() => Known::Value(index),
        (Some(_), _) => Known::absent(Reason::NotApplicable, NO_CODE),
        (None, Some(OomSource::Unreadable)) => Known::absent(
            Reason::Unreadable,
            "the mappings were being changed at that moment, and could not be looked at",
        ),
        (None, _) => Known::absent(Reason::Lost, "the record of its mapping was lost"),
    }
}

fn window(record: &OomMemory) -> Window {
    let length = record.bytes.len().min(record.length as usize);
    let digits = record.bytes[..length]
        .iter()
        .map(|byte| format!("{byte:02x}"));
    Window {
        start: Address(record.address),
        bytes: digits.collect(),
    }
}

fn registers(values: &[u64; REGISTERS.len()]) -> BTreeMap<String, Address> {
    let named = REGISTERS.iter().zip(values);
    named
        .map(|(name, value)| ((*name).to_owned(), Address(*value)))
        .collect()
}

fn addresses(all: &[u64], count: u32) -> Vec<Address> {
    all[..all.len().min(count as usize)]
        .iter()
        .copied()
        .map(Address)
        .collect()
}
