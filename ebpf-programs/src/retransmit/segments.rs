//! Where segments are sent again, by tracepoint.

use core::ffi::c_void;

use aya_ebpf::{
    macros::{btf_tracepoint, map},
    maps::LruHashMap,
    programs::BtfTracePointContext,
};
use hearth_abi::{Fate, Probe};

use super::{counts, socket};
use crate::{globals::offset, ledger, task::Address};

/// By socket: how many segments it had sent again when it was last seen. What it grew by since is
/// right whatever the results were; a socket that is new here goes by its result.
#[map]
static SENT_AGAIN: LruHashMap<u64, u32> = LruHashMap::with_max_entries(8192, 0);

/// Forgets a socket that is closed: its memory may become another one.
#[inline(always)]
pub fn closed(socket: Address) {
    let _ = SENT_AGAIN.remove(socket.raw());
}

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
        let total: u32 = socket.get(offset!(tcp_total_retrans));
        // SAFETY: a copy is taken at once, and nobody else has the socket meanwhile.
        let before = unsafe { SENT_AGAIN.get(socket.raw()) }.copied();
        let _ = SENT_AGAIN.insert(socket.raw(), total, 0);
        let segments = match before {
            Some(before) if before <= total => u64::from(total - before),
            _ => by_result(ctx.arg(2), buffer),
        };
        add(socket, segments)
    });
    0
}

// tcp_retransmit_skb(const struct sock *sk, const struct sk_buff *skb), 4.15 to 6.16: after each
// attempt that succeeded.
#[btf_tracepoint(function = "tcp_retransmit_skb")]
fn retransmit_sent(ctx: BtfTracePointContext) -> i32 {
    ledger::account(Probe::Retransmit, || {
        let socket = Address::of(ctx.arg::<*const c_void>(0));
        let buffer = Address::of(ctx.arg::<*const c_void>(1));
        add(socket, by_result(0, buffer))
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

/// Counts segments that `socket` has sent again to its own peer.
#[inline(always)]
pub fn add(socket: Address, segments: u64) -> Fate {
    if segments == 0 {
        return Fate::Filtered;
    }
    counts::add(&socket::key(socket, socket), segments)
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
