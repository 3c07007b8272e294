//! System calls of watched processes, while something is watched: parts of a start, begins of
//! execs, and the ready rules that are about what a program asks of the kernel.
//!
//! What each call is looked at for is a table that user space fills in: a kind that a better
//! strategy covers is simply not in it.

use aya_ebpf::{
    bindings::pt_regs,
    helpers::{
        bpf_get_current_pid_tgid, bpf_probe_read_user, bpf_probe_read_user_buf,
        generated::bpf_probe_read_user_str,
    },
    macros::{map, raw_tracepoint},
    maps::{Array, LruHashMap, PerCpuArray},
    programs::RawTracePointContext,
};
use hearth_abi::{FILE_BYTES, Fate, InFlight, Kind, Part, Probe, Watch, ready, syscall};

use super::{account, exec, functions::CLONE_NEW, stamp, watch};
use crate::{
    globals::{READY_FILE, offset},
    ledger, ring,
    task::{Address, Task},
};

/// Bits of [`syscall`] by number.
#[map]
static SYSCALLS: Array<u32> = Array::with_max_entries(hearth_abi::SYSCALLS, 0);

/// Calls and functions under way. The key is the tid, with [`FUNCTION`] for a function: it may
/// run inside a call.
#[map]
static IN_FLIGHT: LruHashMap<u64, InFlight> = LruHashMap::with_max_entries(8192, 0);

/// Where messages are looked at: they would take too much of the stack.
#[map]
static LINE: PerCpuArray<[u64; LINE_WORDS]> = PerCpuArray::with_max_entries(1, 0);

/// A path, or the begin of a message.
const LINE_WORDS: usize = FILE_BYTES / 8;

const FUNCTION: u64 = 1 << 32;

/// An open of a FIFO that takes longer than this was held, ns.
const HELD_NS: u64 = 500_000;

const CGROUP_MAGIC: u64 = 0x0027_e0eb;
const CGROUP2_MAGIC: u64 = 0x6367_7270;
const AF_UNIX: u16 = 1;
const AF_NETLINK: u16 = 16;
const S_IFMT: u16 = 0xf000;
const S_IFIFO: u16 = 0x1000;

/// `O_WRONLY | O_RDWR | O_CREAT`.
const WRITES: u64 = 0o103;

const SYS_POLL: u32 = 7;
const SYS_SENDMSG: u32 = 46;
const SYS_CLONE3: u32 = 435;
const SYS_RENAME: u32 = 82;
const SYS_EPOLL_WAIT: u32 = 232;
const SYS_EPOLL_PWAIT: u32 = 281;
const SYS_OPEN: u32 = 2;
const SYS_CREAT: u32 = 85;
const SYS_OPENAT2: u32 = 437;

/// The arguments of a system call.
struct Arguments(*const pt_regs);

impl Arguments {
    #[inline(always)]
    fn get(&self, index: u32) -> u64 {
        // The order of the x86-64 system call convention.
        let regs = Address::of(self.0);
        let at = match index {
            0 => core::mem::offset_of!(pt_regs, rdi),
            1 => core::mem::offset_of!(pt_regs, rsi),
            2 => core::mem::offset_of!(pt_regs, rdx),
            3 => core::mem::offset_of!(pt_regs, r10),
            _ => core::mem::offset_of!(pt_regs, r8),
        };
        regs.get(at as u32)
    }
}

// sys_enter(struct pt_regs *regs, long id).
#[raw_tracepoint(tracepoint = "sys_enter")]
fn sys_enter(ctx: RawTracePointContext) -> i32 {
    let pid_tgid = bpf_get_current_pid_tgid();
    let Some(watch) = watch::of((pid_tgid >> 32) as u32) else {
        ledger::account(Probe::SysEnter, || Fate::Filtered);
        return 0;
    };
    ledger::account(Probe::SysEnter, || {
        if watch::is_source(watch) {
            return Fate::Filtered;
        }
        let number: u64 = ctx.arg(1);
        let Some(&wanted) = SYSCALLS.get(number as u32) else {
            return Fate::Filtered;
        };
        if wanted == 0 {
            return Fate::Filtered;
        }
        entered(
            watch,
            pid_tgid as u32,
            wanted,
            number as u32,
            &Arguments(ctx.arg(0)),
        )
    });
    0
}

#[inline(always)]
fn entered(watch: &mut Watch, tid: u32, wanted: u32, number: u32, arguments: &Arguments) -> Fate {
    let mut part = 0;
    let mut arg = 0;
    let mut left = 0;
    if wanted & syscall::EXEC != 0 {
        return ledger::nested(Probe::ExecBegin, exec::begin_at_syscall);
    }
    if wanted & syscall::ACCEPT != 0 {
        return if may_block(number, arguments) {
            once(watch, Kind::Accept, ready::ACCEPT, number)
        } else {
            Fate::Filtered
        };
    }
    if wanted & syscall::MESSAGE != 0
        && watch.ready & (ready::NOTIFY | ready::NEXT) & !watch.marked != 0
    {
        let fate = sent(watch, number, arguments);
        if !matches!(fate, Fate::Filtered) {
            return fate;
        }
    }
    if wanted & syscall::NAMESPACES != 0 {
        part = Part::Namespaces as u64;
    } else if wanted & syscall::MOUNTS != 0 {
        part = Part::Mounts as u64;
    } else if wanted & syscall::CLONE != 0 {
        if makes_namespace(number, arguments) {
            part = Part::Namespaces as u64;
        }
    } else if wanted & syscall::CGROUP_WRITE != 0 {
        if matches!(magic_of(arguments.get(0)), CGROUP_MAGIC | CGROUP2_MAGIC) {
            part = Part::Cgroup as u64;
        }
    } else if wanted & syscall::NETWORK != 0 && family_of(arguments.get(0)) == AF_NETLINK {
        part = Part::Network as u64;
    }
    left |= wanted & (syscall::CGROUP_MKDIR | syscall::HELD);
    if wanted & syscall::FILE_OPEN != 0 && watch.ready & ready::FILE & !watch.marked != 0 {
        arg = opened_path(number, arguments);
        left |= syscall::FILE_OPEN;
    }
    if wanted & syscall::FILE_RENAME != 0 && watch.ready & ready::FILE & !watch.marked != 0 {
        arg = arguments.get(if number == SYS_RENAME { 1 } else { 3 });
        left |= syscall::FILE_RENAME;
    }
    if part == 0 && left == 0 {
        return Fate::Filtered;
    }
    let call = InFlight {
        begin_ns: stamp::now(),
        wanted: left,
        nr: number,
        part,
        arg,
    };
    match IN_FLIGHT.insert(u64::from(tid), call, 0) {
        Ok(()) => Fate::Aggregated,
        Err(_) => Fate::DroppedMap,
    }
}

#[inline(always)]
fn may_block(number: u32, arguments: &Arguments) -> bool {
    match number {
        SYS_POLL => arguments.get(2) as u32 != 0,
        SYS_EPOLL_WAIT | SYS_EPOLL_PWAIT => arguments.get(3) as u32 != 0,
        _ => true,
    }
}

#[inline(always)]
fn makes_namespace(number: u32, arguments: &Arguments) -> bool {
    let mut flags = arguments.get(0);
    if number == SYS_CLONE3 {
        // struct clone_args begins with the flags. SAFETY: the helper checks the address.
        flags = unsafe { bpf_probe_read_user(flags as *const u64) }.unwrap_or(0);
    }
    flags & CLONE_NEW != 0
}

// sys_exit(struct pt_regs *regs, long ret).
#[raw_tracepoint(tracepoint = "sys_exit")]
fn sys_exit(ctx: RawTracePointContext) -> i32 {
    let pid_tgid = bpf_get_current_pid_tgid();
    let Some(watch) = watch::of((pid_tgid >> 32) as u32) else {
        ledger::account(Probe::SysExit, || Fate::Filtered);
        return 0;
    };
    ledger::account(Probe::SysExit, || {
        let tid = pid_tgid as u32;
        let result: i64 = ctx.arg(1);
        // SAFETY: only this thread makes and takes its entry; copied at once.
        let Some(&call) = (unsafe { IN_FLIGHT.get(u64::from(tid)) }) else {
            if result < 0 {
                exec::forget(tid);
            }
            return Fate::Filtered;
        };
        let _ = IN_FLIGHT.remove(u64::from(tid));
        // Left behind by a call that nobody saw the end of: another time, another call.
        let number: u64 = Address::of(ctx.arg::<*const pt_regs>(0))
            .get(core::mem::offset_of!(pt_regs, orig_rax) as u32);
        if number as u32 != call.nr || !account::is_complete_since(call.begin_ns) {
            return Fate::Filtered;
        }
        left(watch, &call, result)
    });
    0
}

#[inline(always)]
fn left(watch: &mut Watch, call: &InFlight, result: i64) -> Fate {
    if call.part != 0 {
        return publish(watch, call.part, call.begin_ns, call.nr);
    }
    if result < 0 {
        return Fate::Filtered;
    }
    if call.wanted & (syscall::FILE_OPEN | syscall::FILE_RENAME) != 0
        && call.arg != 0
        && is_ready_file(call.arg as *const u8)
    {
        return once(watch, Kind::File, ready::FILE, call.nr);
    }
    if call.wanted & syscall::HELD != 0
        && stamp::now() - call.begin_ns > HELD_NS
        && mode_of(result as u64) & S_IFMT == S_IFIFO
    {
        return publish(watch, Part::Held as u64, call.begin_ns, call.nr);
    }
    Fate::Filtered
}

/// Something inside the current thread's call says what the call is.
#[inline(always)]
pub fn confirm(part: Part) {
    let tid = bpf_get_current_pid_tgid() as u32;
    if let Some(call) = IN_FLIGHT.get_ptr_mut(u64::from(tid)) {
        // SAFETY: only this thread makes and takes its entry.
        unsafe {
            if (*call).wanted & syscall::CGROUP_MKDIR != 0 {
                (*call).part = part as u64;
            }
        }
    }
}

/// A function that is a part begins in the current thread.
#[inline(always)]
pub fn function_begins(part: Part) -> Fate {
    let pid_tgid = bpf_get_current_pid_tgid();
    match watch::of((pid_tgid >> 32) as u32) {
        Some(watch) if !watch::is_source(watch) => {}
        _ => return Fate::Filtered,
    }
    let key = pid_tgid & 0xffff_ffff | FUNCTION;
    let call = InFlight {
        begin_ns: stamp::now(),
        wanted: 0,
        nr: 0,
        part: part as u64,
        arg: 0,
    };
    match IN_FLIGHT.insert(key, call, 0) {
        Ok(()) => Fate::Aggregated,
        Err(_) => Fate::DroppedMap,
    }
}

/// One begins that is none: what an earlier one left behind is not its begin.
#[inline(always)]
pub fn function_is_none() -> Fate {
    let key = bpf_get_current_pid_tgid() & 0xffff_ffff | FUNCTION;
    let _ = IN_FLIGHT.remove(key);
    Fate::Filtered
}

/// It ends.
#[inline(always)]
pub fn function_ends(part: Part) -> Fate {
    let pid_tgid = bpf_get_current_pid_tgid();
    let Some(watch) = watch::of((pid_tgid >> 32) as u32) else {
        return Fate::Filtered;
    };
    let key = pid_tgid & 0xffff_ffff | FUNCTION;
    // SAFETY: only this thread makes and takes its entry; copied at once.
    let Some(&call) = (unsafe { IN_FLIGHT.get(key) }) else {
        return Fate::Filtered;
    };
    let _ = IN_FLIGHT.remove(key);
    // Left behind by a function that nobody saw the end of.
    if call.part != part as u64 {
        return Fate::Filtered;
    }
    if matches!(part, Part::Held) && stamp::now() - call.begin_ns <= HELD_NS {
        return Fate::Filtered;
    }
    publish(watch, part as u64, call.begin_ns, 0)
}

#[inline(always)]
fn publish(watch: &mut Watch, part: u64, begin_ns: u64, number: u32) -> Fate {
    ring::mark(|mark| {
        let args = [part, begin_ns, u64::from(number)];
        stamp::fill(
            mark,
            Kind::Part,
            stamp::now(),
            Task::current(),
            Some(watch),
            args,
        );
    })
}

/// A ready mark that the watch asks for, once.
#[inline(always)]
fn once(watch: &mut Watch, kind: Kind, bit: u32, number: u32) -> Fate {
    if watch.ready & bit & !watch.marked == 0 {
        return Fate::Filtered;
    }
    watch.marked |= bit;
    ring::mark(|mark| {
        let args = [u64::from(number), 0, 0];
        stamp::fill(mark, kind, stamp::now(), Task::current(), Some(watch), args);
    })
}

/// `sd_notify` over a Unix socket, or an HTTP request to the Runtime API.
#[inline(always)]
fn sent(watch: &mut Watch, number: u32, arguments: &Arguments) -> Fate {
    let buffer = if number == SYS_SENDMSG {
        // struct user_msghdr { void *name; int namelen; struct iovec *iov; ... }: the first
        // iovec's base. SAFETY: the helper checks the addresses.
        let iov =
            unsafe { bpf_probe_read_user((arguments.get(1) + 16) as *const u64) }.unwrap_or(0);
        // SAFETY: as above.
        unsafe { bpf_probe_read_user(iov as *const u64) }.unwrap_or(0)
    } else {
        arguments.get(1)
    } as *const u8;
    let family = family_of(arguments.get(0));
    if family == AF_UNIX && watch.ready & ready::NOTIFY & !watch.marked != 0 && says_ready(buffer) {
        return once(watch, Kind::Notify, ready::NOTIFY, number);
    }
    if watch.ready & ready::NEXT & !watch.marked != 0 && asks_for_next(buffer) {
        return once(watch, Kind::Next, ready::NEXT, number);
    }
    Fate::Filtered
}

/// A message that begins with `READY=1`: where the known clients put it.
#[inline(always)]
fn says_ready(buffer: *const u8) -> bool {
    begins_with(buffer, b"READY=1")
}

/// `GET /2018-06-01/runtime/invocation/next`, however its client writes it.
#[inline(always)]
fn asks_for_next(buffer: *const u8) -> bool {
    begins_with(buffer, b"GET /2018-06-01/runtime/invocation/next")
}

/// Compared without branches: the verifier would follow each.
#[inline(always)]
fn begins_with<const N: usize>(buffer: *const u8, word: &[u8; N]) -> bool {
    let Some(line) = LINE.get_ptr_mut(0) else {
        return false;
    };
    // SAFETY: this CPU's own.
    let text = unsafe { &mut *line.cast::<[u8; LINE_WORDS * 8]>() };
    // SAFETY: the helper checks the address.
    if unsafe { bpf_probe_read_user_buf(buffer, &mut text[..N]) }.is_err() {
        return false;
    }
    let mut differing = 0;
    let mut i = 0;
    while i < N {
        differing |= text[i] ^ word[i];
        i += 1;
    }
    differing == 0
}

/// Address of the path of an open that writes; 0 of one that only reads.
#[inline(always)]
fn opened_path(number: u32, arguments: &Arguments) -> u64 {
    match number {
        SYS_CREAT => arguments.get(0),
        SYS_OPEN if arguments.get(1) & WRITES != 0 => arguments.get(0),
        SYS_OPEN => 0,
        SYS_OPENAT2 => {
            // struct open_how begins with the flags. SAFETY: the helper checks the address.
            let how = unsafe { bpf_probe_read_user(arguments.get(2) as *const u64) }.unwrap_or(0);
            if how & WRITES != 0 {
                arguments.get(1)
            } else {
                0
            }
        }
        _ if arguments.get(2) & WRITES != 0 => arguments.get(1),
        _ => 0,
    }
}

/// Compared word by word and without branches: the verifier would follow each.
#[inline(always)]
fn is_ready_file(path: *const u8) -> bool {
    let Some(line) = LINE.get_ptr_mut(0) else {
        return false;
    };
    let mut differing = 0;
    // SAFETY: this CPU's own; what an earlier path left must not be taken for this one's. The
    // helper checks the address, and what cannot be read stays empty. Volatile, because one side
    // is replaced at load, and so that no word waits on the stack for its turn.
    unsafe {
        core::ptr::write_bytes(line, 0, 1);
        bpf_probe_read_user_str(line.cast(), FILE_BYTES as u32, path.cast());
        let mut i = 0;
        loop {
            // A counter that cannot be foreseen: a loop that is unrolled puts every word on the
            // stack, of which 6.1 gives 512 bytes for all calls together.
            let at = core::ptr::read_volatile(&raw const i);
            if at >= LINE_WORDS {
                break;
            }
            let word = (line as *const u64).add(at).read_volatile();
            let wanted = (&raw const READY_FILE as *const u64)
                .add(at)
                .read_volatile();
            differing |= word ^ wanted;
            i = at + 1;
        }
    }
    differing == 0
}

#[inline(always)]
fn magic_of(fd: u64) -> u64 {
    let inode = Task::current().file(fd).follow(offset!(file_inode));
    inode.follow(offset!(inode_sb)).get(offset!(sb_magic))
}

#[inline(always)]
fn mode_of(fd: u64) -> u16 {
    let inode = Task::current().file(fd).follow(offset!(file_inode));
    inode.get(offset!(inode_mode))
}

#[inline(always)]
fn family_of(fd: u64) -> u16 {
    const S_IFSOCK: u16 = 0xc000;
    let file = Task::current().file(fd);
    let mode: u16 = file.follow(offset!(file_inode)).get(offset!(inode_mode));
    if mode & S_IFMT != S_IFSOCK {
        return 0;
    }
    let socket = file.follow(offset!(file_private_data));
    socket.follow(offset!(socket_sk)).get(offset!(sk_family))
}
