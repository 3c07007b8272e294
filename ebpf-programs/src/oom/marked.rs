//! First stage where nothing but a tracepoint can be had.

use aya_ebpf::{
    EbpfContext, bindings::task_struct, macros::btf_tracepoint, programs::BtfTracePointContext,
};
use hearth_abi::{Fate, Probe};

use super::{kill, victims};
use crate::{
    ledger,
    task::{Address, Task},
};

// mark_victim(struct task_struct *task, uid_t uid), 6.8 and later, and stable series of before: of
// the process that is killed, after it was sent its signal. Before that the argument was its pid,
// which the verifier does not let be used like this.
#[btf_tracepoint(function = "mark_victim")]
fn oom_marked(ctx: BtfTracePointContext) -> i32 {
    let typed = ctx.arg::<*mut task_struct>(0);
    let victim = Task::of(typed.cast());
    // Before anything else: it is on its way out already.
    let noted = victims::begin(victim);
    ledger::account(Probe::OomKill, || {
        let Some(id) = noted else {
            return Fate::Filtered;
        };
        let fate = kill::publish(
            ctx.as_ptr(),
            victim,
            &kill::Known {
                id,
                typed,
                mm: victim.mm(),
                control: Address::from_raw(0),
                first: 0,
                doubtful: true,
            },
        );
        match (fate, victims::of(victim)) {
            (Fate::Filtered, _) => victims::forget(victim),
            (_, Some(noted)) => noted.leave(victim),
            _ => {}
        }
        fate
    });
    0
}
