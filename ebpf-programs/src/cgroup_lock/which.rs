//! Which lock an address is: by the table of those that never move, by the structure that it
//! lies in, or by who takes it.

use aya_ebpf::{
    macros::map,
    maps::{HashMap, LruHashMap},
};
use hearth_abi::{ABSENT, Lock, LockSeen, lcb, lock_function};

use super::stack::Caller;
use crate::{
    globals::offset,
    task::{Address, Task},
};

/// Where the kernel's own image begins on x86-64: what is there is never another lock.
const IMAGE: u64 = 0xffff_ffff_8000_0000;
/// Where the kernel's half of addresses begins, with four levels of page tables or five.
const KERNEL: u64 = 1 << 63;
/// `CGROUP_SUPER_MAGIC` and `CGROUP2_SUPER_MAGIC`.
const CGROUP: u64 = 0x0027_e0eb;
const CGROUP2: u64 = 0x6367_7270;
/// How often an unknown lock of the image is looked at before it is left alone.
const LOOKS: u32 = 16;

/// Locks of the kernel's image by address: [`Lock`].
#[map]
static LOCK_ADDRESSES: HashMap<u64, u32> = HashMap::with_max_entries(64, 0);

/// Other locks of the image: how often they were looked at.
#[map]
static LOCK_OTHERS: LruHashMap<u64, u32> = LruHashMap::with_max_entries(512, 0);

/// While it is calibrated: waits by address and by what the caller takes.
#[map]
static LOCK_SEEN: LruHashMap<LockSeen, u64> = LruHashMap::with_max_entries(256, 0);

/// What is known of a lock before the stack is looked at.
pub enum Known {
    /// This lock.
    Is(Lock),
    /// The caller says it, if anything does.
    Ask,
    /// None of ours.
    Not,
}

/// By address and kind.
#[inline(always)]
pub fn at(address: u64, flags: u32) -> Known {
    if address >= IMAGE {
        // SAFETY: the value is copied at once.
        if let Some(&lock) = unsafe { LOCK_ADDRESSES.get(address) } {
            return lock_of(lock).map_or(Known::Not, Known::Is);
        }
        // SAFETY: as above.
        return match unsafe { LOCK_OTHERS.get(address) } {
            Some(&looks) if looks >= LOOKS => Known::Not,
            _ => Known::Ask,
        };
    }
    let lock = Address::of(address as *const u8);
    if flags & lcb::PERCPU != 0 {
        return if is_of_process(lock) {
            Known::Is(Lock::ProcessRwsem)
        } else {
            Known::Not
        };
    }
    if flags & lcb::SPIN == 0 && flags & (lcb::READ | lcb::WRITE) != 0 {
        if is_of_directory(lock) {
            return Known::Is(Lock::ParentDirectory);
        }
        if is_of_tree(lock) {
            return Known::Is(Lock::Kernfs);
        }
    }
    Known::Not
}

/// By who takes it; what was found out is remembered.
#[inline(always)]
pub fn by_caller(address: u64, flags: u32, caller: Caller) -> Option<Lock> {
    let lock = taken(flags, caller);
    match lock {
        Some(lock) => {
            let _ = LOCK_ADDRESSES.insert(address, lock as u32, 0);
        }
        None => {
            // SAFETY: the value is copied at once.
            let looks = unsafe { LOCK_OTHERS.get(address) }.copied().unwrap_or(0);
            let _ = LOCK_OTHERS.insert(address, looks + 1, 0);
        }
    }
    lock
}

/// What a caller takes of this kind of lock.
#[inline(always)]
fn taken(flags: u32, caller: Caller) -> Option<Lock> {
    let takes = |what: u32| caller.takes & what != 0;
    if flags & lcb::MUTEX != 0 {
        takes(lock_function::TAKES_MUTEX).then_some(Lock::CgroupMutex)
    } else if flags & lcb::PERCPU != 0 {
        takes(lock_function::TAKES_THREADGROUP).then_some(Lock::ThreadgroupRwsem)
    } else if flags & lcb::SPIN != 0 && flags & lcb::READ == 0 {
        takes(lock_function::TAKES_CSS_SET).then_some(Lock::CssSetLock)
    } else {
        None
    }
}

/// Counts a wait of the calibrating process.
#[inline(always)]
pub fn calibrated(address: u64, flags: u32, caller: Caller) {
    let lock = match taken(flags, caller) {
        Some(lock) => lock as u32,
        None if flags & lcb::MUTEX != 0 && address >= IMAGE => ABSENT,
        None => return,
    };
    let key = LockSeen {
        address,
        lock,
        unused: 0,
    };
    // SAFETY: the value is copied at once. Counts of two at once may be one: many are wanted.
    let seen = unsafe { LOCK_SEEN.get(key) }.copied().unwrap_or(0);
    let _ = LOCK_SEEN.insert(key, seen + 1, 0);
}

#[inline(always)]
fn lock_of(raw: u32) -> Option<Lock> {
    match raw {
        0 => Some(Lock::CgroupMutex),
        1 => Some(Lock::ThreadgroupRwsem),
        3 => Some(Lock::CssSetLock),
        4 => Some(Lock::Rstat),
        5 => Some(Lock::Kernfs),
        _ => None,
    }
}

/// The structure that has this lock at `offset`; at 0 if there is no such member.
#[inline(always)]
fn around(lock: Address, offset: u32) -> Address {
    if offset == ABSENT {
        return Address::of(core::ptr::null::<u8>());
    }
    Address::of(lock.raw().wrapping_sub(u64::from(offset)) as *const u8)
}

/// `inode.i_rwsem` of a cgroup file system.
#[inline(always)]
fn is_of_directory(lock: Address) -> bool {
    let block = around(lock, offset!(inode_rwsem)).follow(offset!(inode_sb));
    // Anything may be there: what cannot be an address is not tried.
    if block.raw() < KERNEL {
        return false;
    }
    let magic: u64 = block.get(offset!(sb_magic));
    magic == CGROUP || magic == CGROUP2
}

/// `kernfs_root.kernfs_*rwsem` of a cgroup file system: its root node stands for a cgroup, whose
/// node it is.
#[inline(always)]
fn is_of_tree(lock: Address) -> bool {
    is_tree(around(lock, offset!(kernfs_root_rwsem)))
        || is_tree(around(lock, offset!(kernfs_root_iattr_rwsem)))
        || is_tree(around(lock, offset!(kernfs_root_supers_rwsem)))
}

#[inline(always)]
fn is_tree(root: Address) -> bool {
    if root.is_null() {
        return false;
    }
    let node = root.follow(offset!(kernfs_root_kn));
    if node.raw() < KERNEL {
        return false;
    }
    let cgroup = node.follow(offset!(kernfs_node_priv));
    if cgroup.raw() < KERNEL {
        return false;
    }
    cgroup.follow(offset!(cgroup_kn)) == node
}

/// `signal_struct.cgroup_threadgroup_rwsem`: the first thread of the list is of this process.
#[inline(always)]
fn is_of_process(lock: Address) -> bool {
    let signal = around(lock, offset!(signal_threadgroup_rwsem));
    if signal.is_null() {
        return false;
    }
    let node = signal.follow(offset!(signal_thread_head));
    let task = around(node, offset!(task_thread_node));
    // The waiter's own process needs no list; it may be on none any more.
    Task::current().signal() == signal || task.follow(offset!(task_signal)) == signal
}
