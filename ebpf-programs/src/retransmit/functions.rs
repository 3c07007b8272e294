//! Where segments are sent again, by function: what the socket's own `tcp_sock.total_retrans` grows
//! by. It grows together with `RetransSegs` of the namespace, in `__tcp_retransmit_skb`.
//!
//! The kernel may inline that function into its callers in the same source file, and does. So all
//! are looked at that lead to it from elsewhere; whichever is the outermost counts.

use core::ffi::c_void;

use aya_ebpf::{
    macros::{fentry, fexit, map},
    maps::HashMap,
    programs::{FEntryContext, FExitContext},
};
use hearth_abi::{Fate, Probe, UnderWay};

use super::{segments, socket};
use crate::{ledger, task::Address};

/// By socket: what is under way. The socket is locked meanwhile, so there are no more of them than
/// tasks that run or were preempted.
#[map]
static RETRANSMITTING: HashMap<u64, UnderWay> = HashMap::with_max_entries(1024, 0);

#[inline(always)]
fn begins(function: u32, socket: Address) {
    // SAFETY: nobody else has the socket meanwhile.
    let outer = unsafe { RETRANSMITTING.get(socket.raw()) };
    // One of the same function is left of an end that was missed: what was sent again since then
    // counts now.
    if outer.is_none() {
        let before = segments::total(socket);
        let _ = RETRANSMITTING.insert(socket.raw(), UnderWay { function, before }, 0);
    }
}

#[inline(always)]
fn ends(function: u32, socket: Address) -> Fate {
    // SAFETY: likewise; a copy is taken at once.
    let Some(under_way) = unsafe { RETRANSMITTING.get(socket.raw()) }.copied() else {
        return Fate::DroppedMap;
    };
    if under_way.function != function {
        return Fate::Filtered;
    }
    let _ = RETRANSMITTING.remove(socket.raw());
    let (before, now) = (under_way.before, segments::total(socket));
    // A socket that was closed meanwhile begins at zero again.
    let segments = if now >= before { now - before } else { now };
    segments::add(&socket::key(socket, socket), u64::from(segments))
}

macro_rules! sends_again {
    ($(#[doc = $prototype:literal] $begin:ident, $end:ident: $function:literal, $number:literal;)*) => {$(
        #[doc = $prototype]
        #[fentry(function = $function)]
        fn $begin(ctx: FEntryContext) -> i32 {
            begins($number, Address::of(ctx.arg::<*const c_void>(0)));
            0
        }

        #[doc = $prototype]
        #[fexit(function = $function)]
        fn $end(ctx: FExitContext) -> i32 {
            ledger::account(Probe::Retransmit, || {
                ends($number, Address::of(ctx.arg::<*const c_void>(0)))
            });
            0
        }
    )*};
}

sends_again! {
    /// `int __tcp_retransmit_skb(struct sock *sk, struct sk_buff *skb, int segs)`, 4.6 and later.
    retransmit_inner_begin, retransmit_inner_end: "__tcp_retransmit_skb", 1;
    /// `int tcp_retransmit_skb(struct sock *sk, struct sk_buff *skb, int segs)`, 4.6 and later.
    retransmit_begin, retransmit_end: "tcp_retransmit_skb", 2;
    /// `void tcp_xmit_retransmit_queue(struct sock *sk)`, 2.6 and later.
    retransmit_queue_begin, retransmit_queue_end: "tcp_xmit_retransmit_queue", 3;
    /// `void tcp_send_loss_probe(struct sock *sk)`, 3.10 and later.
    retransmit_probe_begin, retransmit_probe_end: "tcp_send_loss_probe", 4;
}
