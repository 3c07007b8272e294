//! The default ready: the first TCP listen.

use core::ffi::c_void;

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};
use hearth_abi::{Fate, Kind, Probe};

use super::{stamp, watch};
use crate::{
    globals::{config, offset},
    ledger, ring,
    task::{Address, Task},
};

const TCP_CLOSE: u32 = 7;
const TCP_LISTEN: u32 = 10;

// inet_sock_set_state(const struct sock *sk, const int oldstate, const int newstate), 4.16 and
// later. From closed to listening it runs in the listener.
#[btf_tracepoint(function = "inet_sock_set_state")]
fn listen(ctx: BtfTracePointContext) -> i32 {
    ledger::account(Probe::Listen, || listening(&ctx));
    0
}

#[inline(always)]
fn listening(ctx: &BtfTracePointContext) -> Fate {
    if ctx.arg::<u32>(1) != TCP_CLOSE || ctx.arg::<u32>(2) != TCP_LISTEN {
        return Fate::Filtered;
    }
    let task = Task::current();
    let watched = watch::of(task.tgid());
    match &watched {
        Some(watch) if watch::is_source(watch) => return Fate::Filtered,
        None if config!(every_exec) == 0 => return Fate::Filtered,
        _ => {}
    }
    let socket = Address::of(ctx.arg::<*const c_void>(0));
    let port = socket.get::<u16>(offset!(sk_num));
    let family = socket.get::<u16>(offset!(sk_family));
    ring::mark(|mark| {
        let args = [u64::from(port), u64::from(family), 0];
        stamp::fill(mark, Kind::Listen, stamp::now(), task, watched, args);
    })
}
