//! Whose a socket is where the kernel does not keep that: with the v1 memory controller.
//!
//! A socket belongs to the cgroup that connected it, or that listens at its port. Both happen in
//! the owner's own context; retransmissions do not.

use core::ffi::c_void;

use aya_ebpf::{
    macros::{btf_tracepoint, map},
    maps::LruHashMap,
    programs::BtfTracePointContext,
};
use hearth_abi::{Fate, Probe};

use super::socket;
use crate::{
    globals::offset,
    ledger,
    task::{Address, Task},
};

pub const TCP_SYN_SENT: u32 = 2;
pub const TCP_CLOSE: u32 = 7;
const TCP_LISTEN: u32 = 10;

/// Cgroups by socket (its address), and by namespace and port for those that listen (never an
/// address of the kernel's, which has its highest bits set).
#[map]
static OWNERS: LruHashMap<u64, u64> = LruHashMap::with_max_entries(8192, 0);

// inet_sock_set_state(const struct sock *sk, const int oldstate, const int newstate), 4.16 and
// later. connect() and listen() make these changes in the caller's context.
#[btf_tracepoint(function = "inet_sock_set_state")]
fn socket_owner(ctx: BtfTracePointContext) -> i32 {
    ledger::account(Probe::SocketOwner, || {
        let socket = Address::of(ctx.arg::<*const c_void>(0));
        let state = ctx.arg::<u32>(2);
        if !socket::is_tcp(socket) {
            return Fate::Filtered;
        }
        if state == TCP_CLOSE {
            // Its memory may become another socket.
            return match OWNERS.remove(socket.raw()) {
                Ok(()) => Fate::Aggregated,
                Err(_) => Fate::Filtered,
            };
        }
        if (state != TCP_SYN_SENT && state != TCP_LISTEN) || socket::charged(socket) != 0 {
            return Fate::Filtered;
        }
        let cgroup = Task::current().memory_cgroup().id();
        let mut kept = OWNERS.insert(socket.raw(), cgroup, 0).is_ok();
        if state == TCP_LISTEN {
            let port = at_port(socket, socket::netns(socket));
            kept &= OWNERS.insert(port, cgroup, 0).is_ok();
        }
        if kept {
            Fate::Aggregated
        } else {
            Fate::DroppedMap
        }
    });
    0
}

/// The owner of a socket; 0 when unknown.
#[inline(always)]
pub fn of(socket: Address, netns: u32) -> u64 {
    // SAFETY: a copy is taken at once; an entry that is reused meanwhile costs a wrong name.
    let own = unsafe { OWNERS.get(socket.raw()) };
    // SAFETY: likewise.
    let listener = || unsafe { OWNERS.get(at_port(socket, netns)) };
    own.or_else(listener).copied().unwrap_or(0)
}

#[inline(always)]
fn at_port(socket: Address, netns: u32) -> u64 {
    u64::from(netns) << 16 | u64::from(socket.get::<u16>(offset!(sk_num)))
}
