//! Segments that TCP sends again.

use super::{Hook, Signal, always, fentry, fexit, tp_btf};

/// Its kinds.
pub(super) const HOOKS: &[Hook] = &[
    Hook {
        signal: Signal::Retransmit,
        kind: "retransmit",
        purpose: "segments sent again",
        required: false,
        strategies: &[
            always(
                "fentry",
                &[
                    fentry("retransmit_inner_begin", "__tcp_retransmit_skb"),
                    fexit("retransmit_inner_end", "__tcp_retransmit_skb"),
                    fentry("retransmit_begin", "tcp_retransmit_skb"),
                    fexit("retransmit_end", "tcp_retransmit_skb"),
                    fentry("retransmit_queue_begin", "tcp_xmit_retransmit_queue"),
                    fexit("retransmit_queue_end", "tcp_xmit_retransmit_queue"),
                    fentry("retransmit_probe_begin", "tcp_send_loss_probe"),
                    fexit("retransmit_probe_end", "tcp_send_loss_probe"),
                ],
                Some(0),
                "what the socket's own count grows by: equal to RetransSegs, whatever becomes of the attempt",
            ),
            always(
                "tp_btf:err",
                &[
                    tp_btf("retransmit_tried", "tcp_retransmit_skb"),
                    tp_btf("retransmit_settled", "inet_sock_set_state"),
                ],
                Some(0),
                "Linux 6.17 and later: what the socket's own count grew by, from its connection to its end; the first attempt of one that is older than hearth goes by its result",
            ),
            always(
                "tp_btf",
                &[tp_btf("retransmit_sent", "tcp_retransmit_skb")],
                Some(0),
                "only attempts that succeeded: what this host itself refused or dropped is in RetransSegs and not here",
            ),
        ],
    },
    Hook {
        signal: Signal::Retransmit,
        kind: "retransmit_synack",
        purpose: "SYN-ACKs sent again",
        required: false,
        strategies: &[always(
            "tp_btf",
            &[tp_btf("retransmit_synack", "tcp_retransmit_synack")],
            Some(0),
            "",
        )],
    },
    Hook {
        signal: Signal::Retransmit,
        kind: "socket_owner",
        purpose: "whose a socket is, with the v1 memory controller",
        required: false,
        strategies: &[always(
            "tp_btf",
            &[tp_btf("socket_owner", "inet_sock_set_state")],
            Some(0),
            "whoever connected it, or listens at its port, while hearth ran",
        )],
    },
];
