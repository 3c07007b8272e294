//! The mappings that a thread's addresses lie in, each once a capture.

use core::ffi::c_void;

use aya_ebpf::{
    bindings::BPF_NOEXIST,
    helpers::{
        bpf_loop,
        generated::{bpf_find_vma, bpf_probe_read_kernel_str},
    },
    macros::map,
    maps::{LruHashMap, PerCpuArray},
};
use hearth_abi::{
    Fate, OOM_NAME_BYTES, OOM_USER_FRAMES, OomRecord, OomSource, OomThread, OomThreadField, OomVma,
    Probe, oom_vma,
};

use super::thread::{RSP, current, note};
use crate::{
    globals::offset,
    ledger, ring,
    task::{Address, Task},
};

/// `VM_EXEC`: since ever.
const VM_EXEC: u64 = 4;
/// Directories and mounts that a name is followed through.
const STEPS: u32 = 32;
/// `-EBUSY`: the lock of the address space was not to be had.
const BUSY: i64 = -16;
/// Longest name of an entry, its end included.
const ENTRY: usize = 256;

/// Words of [`OomThread::unmapped`].
const UNMAPPED: usize = OOM_USER_FRAMES.div_ceil(64);

/// Whose record it goes with.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Whose {
    pub id: u64,
    pub tgid: u32,
    pub tid: u32,
    pub start_boottime: u64,
}

/// What was learnt on the way.
pub struct Mapped {
    /// Whether every frame could be looked up.
    pub frames: OomSource,
    /// End of the mapping that the stack pointer lies in, or 0.
    pub stack_end: u64,
}

/// A mapping that was told, of which process's life.
#[derive(Clone, Copy)]
#[repr(C)]
struct Told {
    tgid: u64,
    start_boottime: u64,
    start: u64,
}

/// The mappings that were told; the oldest go first, and may be told again.
#[map]
static TOLD: LruHashMap<Told, u8> = LruHashMap::with_max_entries(4096, 0);

/// What a look-up has found.
#[derive(Clone, Copy)]
#[repr(C)]
struct Found {
    start: u64,
    end: u64,
    page_offset: u64,
    flags: u64,
    file: u64,
    /// Whether it could not be looked for.
    busy: u64,
}

/// Where a walk from a file to the root is.
#[derive(Clone, Copy)]
#[repr(C)]
struct Walk {
    length: u64,
    mount: u64,
    entry: u64,
    root_mount: u64,
    root_entry: u64,
    done: u64,
}

/// What loops carry on. In a map, and not on the stack, because the verifier follows what it
/// knows of the stack through each turn of a loop, and of a map's values it knows nothing.
#[derive(Clone, Copy)]
#[repr(C)]
struct Carried {
    whose: Whose,
    found: Found,
    walk: Walk,
    /// Frames that could not be looked up.
    busy: u64,
    /// Frames that lie in no mapping, a bit each.
    unmapped: [u64; UNMAPPED],
}

#[map]
static CARRIED: PerCpuArray<Carried> = PerCpuArray::with_max_entries(1, 0);

/// A pointer, and never a reference: callbacks change it behind the compiler's back.
#[inline(always)]
fn carried() -> Option<*mut Carried> {
    CARRIED.get_ptr_mut(0)
}

/// Called by the helper with the lock of the address space held.
unsafe extern "C" fn look(_task: *mut c_void, vma: *const c_void, _none: *mut c_void) -> u64 {
    let vma = Address::of(vma);
    if let Some(carried) = carried() {
        let found = Found {
            start: vma.get(offset!(vma_start)),
            end: vma.get(offset!(vma_end)),
            page_offset: vma.get(offset!(vma_pgoff)),
            flags: vma.get(offset!(vma_flags)),
            file: vma.get(offset!(vma_file)),
            busy: 0,
        };
        // SAFETY: this CPU's, and no two programs that use it can run on one CPU at a time.
        unsafe { (*carried).found = found };
    }
    0
}

/// Finds the mapping of an address of the running thread; its end is 0 if there is none.
#[inline(always)]
fn find(carried: *mut Carried, address: u64) -> Found {
    let mut none = 0_u64;
    // SAFETY: as in `look`; the callback takes nothing.
    unsafe {
        (*carried).found.end = 0;
        let failed = bpf_find_vma(
            current(),
            address,
            look as *mut c_void,
            (&raw mut none).cast(),
            0,
        );
        (*carried).found.busy = u64::from(failed == BUSY);
        core::ptr::read_volatile(&raw const (*carried).found)
    }
}

unsafe extern "C" fn next_frame(index: u64, record: *mut *const OomThread) -> u64 {
    // SAFETY: the caller's own value, alive for the whole loop.
    let record = unsafe { *record };
    let Some(carried) = carried() else {
        return 1;
    };
    if index >= OOM_USER_FRAMES as u64 {
        return 1;
    }
    // SAFETY: the record, in the ring and not submitted; the index was looked at.
    let (address, frames) =
        unsafe { ((*record).user_stack[index as usize], (*record).user_frames) };
    if index >= u64::from(frames) {
        return 1;
    }
    let found = find(carried, address);
    if found.end != 0 {
        tell();
    } else if found.busy != 0 {
        // SAFETY: as in `look`.
        unsafe { (*carried).busy += 1 };
    } else {
        // A walk by frame pointers through code that has none ends in no mapping.
        // SAFETY: as in `look`.
        unsafe { (*carried).unmapped[(index / 64) as usize % UNMAPPED] |= 1 << (index % 64) };
    }
    0
}

/// Tells the mappings of a thread's frames, and looks whether its leaf is one.
#[inline(always)]
pub fn of_thread(whose: &Whose, record: &mut OomThread) -> Mapped {
    let Some(carried) = carried() else {
        return Mapped {
            frames: OomSource::Unreadable,
            stack_end: 0,
        };
    };
    let mut frames: *const OomThread = &raw const *record;
    // SAFETY: as in `look`; the callback takes what it is given here.
    let busy = unsafe {
        (*carried).whose = *whose;
        (*carried).busy = 0;
        (*carried).unmapped = [0; UNMAPPED];
        bpf_loop(
            OOM_USER_FRAMES as u32,
            next_frame as *mut c_void,
            (&raw mut frames).cast(),
            0,
        );
        record.unmapped = core::ptr::read_volatile(&raw const (*carried).unmapped);
        core::ptr::read_volatile(&raw const (*carried).busy)
    };
    if record.leaf != 0 {
        let found = find(carried, record.leaf);
        if found.end != 0 && found.flags & VM_EXEC != 0 {
            tell();
        } else {
            record.leaf = 0;
            if found.busy != 0 {
                note(record, OomThreadField::Leaf, OomSource::Unreadable);
            }
        }
    }
    Mapped {
        frames: if busy == 0 {
            OomSource::Read
        } else {
            OomSource::Unreadable
        },
        stack_end: find(carried, record.registers[RSP]).end,
    }
}

/// Makes the record of the mapping that was found, if it is the first that its process has.
#[inline(never)]
fn tell() -> u64 {
    ledger::account(Probe::OomVma, || {
        let Some(carried) = carried() else {
            return Fate::DroppedMap;
        };
        // SAFETY: as in `look`.
        let (whose, found) = unsafe { (&raw const (*carried).whose, &raw const (*carried).found) };
        // SAFETY: as in `look`.
        let told = unsafe {
            Told {
                tgid: u64::from((*whose).tgid),
                start_boottime: (*whose).start_boottime,
                start: (*found).start,
            }
        };
        if TOLD.insert(told, 1, BPF_NOEXIST.into()).is_err() {
            return Fate::Filtered;
        }
        let fate = ring::capture_if::<OomVma>(|vma| {
            // SAFETY: reserved memory of the ring of this size, all zero; the rest as in `look`.
            unsafe {
                (*vma).kind = OomRecord::Vma as u16;
                (*vma).id = (*whose).id;
                (*vma).tgid = (*whose).tgid;
                (*vma).start_boottime = (*whose).start_boottime;
                (*vma).start = (*found).start;
                (*vma).end = (*found).end;
                (*vma).page_offset = (*found).page_offset;
                (*vma).vm_flags = (*found).flags;
                if (*found).file != 0 {
                    (*vma).flags = oom_vma::FILE;
                    name(vma, carried);
                }
            }
            true
        });
        if matches!(fate, Fate::DroppedRing) {
            // The next frame in it tells it.
            let _ = TOLD.remove(told);
        }
        fate
    });
    0
}

unsafe extern "C" fn next_name(_index: u64, to: *mut *mut OomVma) -> u64 {
    // SAFETY: the caller's own value, alive for the whole walk.
    let to = unsafe { *to };
    let Some(carried) = carried() else {
        return 1;
    };
    // SAFETY: as in `look`; nothing else changes it during a step.
    let walk = unsafe { &mut (*carried).walk };
    if walk.entry == walk.root_entry && walk.mount == walk.root_mount {
        walk.done = 1;
        return 1;
    }
    let mount = Address::from_raw(walk.mount);
    let entry = Address::from_raw(walk.entry);
    let parent = entry.follow(offset!(dentry_parent));
    if mount.follow(offset!(mnt_root)) == entry || parent == entry {
        // Up into the file system that this one is mounted on.
        let outer = mount.container(offset!(mount_mnt));
        let above = outer.follow(offset!(mount_parent));
        if above == outer || above.is_null() {
            walk.done = 1;
            return 1;
        }
        walk.entry = outer.get(offset!(mount_mountpoint));
        walk.mount = above.member(offset!(mount_mnt)).raw();
        return 0;
    }
    let length = walk.length;
    if length > (OOM_NAME_BYTES - ENTRY) as u64 {
        return 1;
    }
    let from = entry.follow(offset!(dentry_name)).as_ptr().cast();
    // SAFETY: a record of the ring, not submitted, with room for the longest name at this place.
    let bytes = unsafe {
        let names: *mut u8 = (&raw mut (*to).names).cast();
        bpf_probe_read_kernel_str(names.add(length as usize).cast(), ENTRY as u32, from)
    };
    if bytes > 0 {
        walk.length = length + bytes as u64;
    }
    walk.entry = parent.raw();
    0
}

/// # Safety
/// Both can be written.
#[inline(always)]
unsafe fn name(to: *mut OomVma, carried: *mut Carried) {
    // SAFETY: the caller's promise.
    let file = Address::from_raw(unsafe { (*carried).found.file });
    let node = file.follow(offset!(file_inode));
    let inode = node.get(offset!(inode_ino));
    let device = node.follow(offset!(inode_sb)).get(offset!(sb_dev));
    let (root_mount, root_entry) = Task::current().root();
    let begin = Walk {
        length: 0,
        mount: file.get(offset!(file_mnt)),
        entry: file.get(offset!(file_dentry)),
        root_mount: root_mount.raw(),
        root_entry: root_entry.raw(),
        done: 0,
    };
    let mut record = to;
    // SAFETY: the caller's promise; the callback takes what it is given here.
    unsafe {
        (*to).inode = inode;
        (*to).device = device;
        (*carried).walk = begin;
        bpf_loop(STEPS, next_name as *mut c_void, (&raw mut record).cast(), 0);
        let walk = core::ptr::read_volatile(&raw const (*carried).walk);
        (*to).names_length = walk.length as u32;
        if walk.done == 0 {
            (*to).flags |= oom_vma::NAMES_CUT;
        }
    }
}
