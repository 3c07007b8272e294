//! Kills for want of memory: the kill itself, and what its victim's threads were doing.

use super::{Hook, Signal, always, fentry, fexit, kprobe, kretprobe, tp_btf};

/// Its kinds.
pub(super) const HOOKS: &[Hook] = &[
    Hook {
        signal: Signal::Oom,
        kind: "oom:kill",
        purpose: "who is killed, who asked, and what was short",
        required: false,
        strategies: &[
            always(
                "fentry",
                &[
                    fentry("oom_killing_begin", "oom_kill_process"),
                    fexit("oom_killing_end", "oom_kill_process"),
                    fentry("oom_killed", "__oom_kill_process"),
                ],
                Some(0),
                "before the victim is sent its signal",
            ),
            always(
                "kprobe",
                &[
                    kprobe("oom_killing_begin_kprobe", "oom_kill_process"),
                    kretprobe("oom_killing_end_kprobe", "oom_kill_process"),
                    kprobe("oom_killed_kprobe", "__oom_kill_process"),
                ],
                Some(0),
                "without the victim's registers and kernel stack at the kill",
            ),
            always(
                "tp_btf:mark_victim",
                &[tp_btf("oom_marked", "mark_victim")],
                None,
                "after the signal was sent; the limit is derived, the request and the points are not to be had",
            ),
        ],
    },
    Hook {
        signal: Signal::Oom,
        kind: "oom:thread",
        purpose: "registers, stacks and mappings of each thread of the victim, in its own context",
        required: false,
        strategies: &[
            always(
                "tp_btf:sched_process_exit",
                &[tp_btf("oom_thread", "sched_process_exit")],
                Some(0),
                "",
            ),
            always(
                "fentry",
                &[
                    fentry("oom_thread_fentry", "do_exit"),
                    tp_btf("oom_ended", "sched_process_exit"),
                ],
                Some(0),
                "",
            ),
            always(
                "kprobe",
                &[
                    kprobe("oom_thread_kprobe", "do_exit"),
                    tp_btf("oom_ended", "sched_process_exit"),
                ],
                Some(0),
                "",
            ),
        ],
    },
];
