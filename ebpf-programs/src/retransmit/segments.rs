//! Where segments are sent again, by tracepoint.

use core::ffi::c_void;

use aya_ebpf::{
    macros::{btf_tracepoint, map},
    maps::LruHashMap,
    programs::BtfTracePointContext,
};
use hearth_abi::{Fate, Probe, RetransmitKey};

use super::{
    counts,
    owner::{TCP_CLOSE, TCP_SYN_SENT},
    socket,
};
use crate::{globals::offset, ledger, task::Address};

const TCP_ESTABLISHED: u32 = 1;

/// What a socket had sent again when it was last seen, and for whom that counts.
#[derive(Clone, Copy)]
#[repr(C)]
struct Seen {
    key: RetransmitKey,
    total: u32,
    padding: u32,
}

/// By socket, from when it begins to connect or is accepted. What it grew by since is right whatever
/// the results were; a socket that is older than this, or was evicted, goes by its result at first.
#[map]
static SENT_AGAIN: LruHashMap<u64, Seen> = LruHashMap::with_max_entries(8192, 0);

/// Errors with which `__tcp_retransmit_skb` gives up before it has counted anything: the buffer
/// still waits in a queue of this host (`EBUSY`), the peer takes nothing (`EAGAIN`), nothing is
/// left to send (`EINVAL`), no memory to cut the buffer to size (`ENOMEM`), no route
/// (`EHOSTUNREACH`). With any other one it has counted, and the transmission failed: refused by a
/// filter, dropped by a queue, no memory for the copy.
#[inline(always)]
fn gave_up_before(error: i32) -> bool {
    const EAGAIN: i32 = 11;
    const ENOMEM: i32 = 12;
    const EBUSY: i32 = 16;
    const EINVAL: i32 = 22;
    const EHOSTUNREACH: i32 = 113;
    matches!(-error, EAGAIN | ENOMEM | EBUSY | EINVAL | EHOSTUNREACH)
}

// tcp_retransmit_skb(const struct sock *sk, const struct sk_buff *skb, int err), 6.17 and later:
// after each attempt.
#[btf_tracepoint(function = "tcp_retransmit_skb")]
fn retransmit_tried(ctx: BtfTracePointContext) -> i32 {
    ledger::account(Probe::Retransmit, || {
        let socket = Address::of(ctx.arg::<*const c_void>(0));
        let buffer = Address::of(ctx.arg::<*const c_void>(1));
        let total = total(socket);
        let key = socket::key(socket, socket);
        // SAFETY: a copy is taken at once, and nobody else has the socket meanwhile.
        let seen = unsafe { SENT_AGAIN.get(socket.raw()) }.copied();
        remember(socket, key, total);
        let segments = match seen {
            Some(seen) if seen.total <= total => u64::from(total - seen.total),
            _ => by_result(ctx.arg(2), buffer),
        };
        add(&key, segments)
    });
    0
}

// inet_sock_set_state(const struct sock *sk, const int oldstate, const int newstate), 4.16 and
// later. Now and then no program is called at the tracepoint above for an attempt that was counted:
// what is left of these counts when the connection is made, or when it ends.
#[btf_tracepoint(function = "inet_sock_set_state")]
fn retransmit_settled(ctx: BtfTracePointContext) -> i32 {
    ledger::account(Probe::Retransmit, || {
        let socket = Address::of(ctx.arg::<*const c_void>(0));
        settle(socket, ctx.arg(2))
    });
    0
}

#[inline(always)]
fn settle(socket: Address, new: u32) -> Fate {
    let counts = matches!(new, TCP_SYN_SENT | TCP_ESTABLISHED | TCP_CLOSE);
    if !counts || !socket::is_tcp(socket) {
        return Fate::Filtered;
    }
    let total = total(socket);
    // SAFETY: a copy is taken at once, and nobody else has the socket meanwhile.
    let seen = unsafe { SENT_AGAIN.get(socket.raw()) }.copied();
    let before = match seen {
        Some(seen) => seen.total,
        // One that was accepted begins with what its request had sent again, which has counted; of
        // one that is older than this, or was evicted, nothing is known.
        None => total,
    };
    // A socket that is closed may have lost its port already, by which its owner is found. At any
    // other time the one that is remembered may be of another socket at this address, whose end
    // was missed.
    let key = match seen {
        Some(seen) if new == TCP_CLOSE => seen.key,
        _ => socket::key(socket, socket),
    };
    if new == TCP_CLOSE {
        // Its memory may become another socket.
        let _ = SENT_AGAIN.remove(socket.raw());
    } else {
        remember(socket, key, total);
    }
    add(&key, u64::from(total.saturating_sub(before)))
}

#[inline(always)]
fn remember(socket: Address, key: RetransmitKey, total: u32) {
    let seen = Seen {
        key,
        total,
        padding: 0,
    };
    let _ = SENT_AGAIN.insert(socket.raw(), seen, 0);
}

// tcp_retransmit_skb(const struct sock *sk, const struct sk_buff *skb), 4.15 to 6.16: after each
// attempt that succeeded.
#[btf_tracepoint(function = "tcp_retransmit_skb")]
fn retransmit_sent(ctx: BtfTracePointContext) -> i32 {
    ledger::account(Probe::Retransmit, || {
        let socket = Address::of(ctx.arg::<*const c_void>(0));
        let buffer = Address::of(ctx.arg::<*const c_void>(1));
        add(&socket::key(socket, socket), by_result(0, buffer))
    });
    0
}

// tcp_retransmit_synack(const struct sock *sk, const struct request_sock *req), 4.16 and later:
// where it was sent.
#[btf_tracepoint(function = "tcp_retransmit_synack")]
fn retransmit_synack(ctx: BtfTracePointContext) -> i32 {
    ledger::account(Probe::RetransmitSynack, || {
        let socket = Address::of(ctx.arg::<*const c_void>(0));
        let request = Address::of(ctx.arg::<*const c_void>(1));
        counts::add(&socket::key(socket, request), 1)
    });
    0
}

/// Counts segments, if there are any.
#[inline(always)]
pub fn add(key: &RetransmitKey, segments: u64) -> Fate {
    if segments == 0 {
        return Fate::Filtered;
    }
    counts::add(key, segments)
}

/// Segments that a socket has sent again so far.
#[inline(always)]
pub fn total(socket: Address) -> u32 {
    socket.get(offset!(tcp_total_retrans))
}

/// Segments that the kernel has counted for an attempt with this result.
#[inline(always)]
fn by_result(error: i32, buffer: Address) -> u64 {
    if gave_up_before(error) {
        return 0;
    }
    // struct tcp_skb_cb lies in sk_buff.cb.
    let control = buffer.member(offset!(skb_cb));
    u64::from(control.get::<u16>(offset!(tcp_cb_segments)))
}
