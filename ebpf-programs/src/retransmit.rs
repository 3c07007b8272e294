//! The `retransmit` signal: TCP segments sent again, counted where the kernel itself counts them.
//!
//! `RetransSegs` of a network namespace grows in two places: in `__tcp_retransmit_skb`, by the
//! segments of the buffer, before the transmission is tried and whether or not it succeeds; and in
//! `tcp_rtx_synack`, by one, where it succeeded.

mod counts;
mod functions;
mod owner;
mod segments;
mod socket;
