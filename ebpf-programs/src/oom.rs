//! The `oom` signal: who was killed for want of memory, and what its threads were doing.
//!
//! First stage: `control` (functions, where this kernel lets us) or `marked` (a tracepoint) note
//! the victim and let `kill` make its record. Second stage: `thread`, in the victim's own context
//! as each thread exits, with `memory` and `mapping`.

mod control;
mod counters;
mod kill;
mod mapping;
mod marked;
mod memcg;
mod memory;
mod thread;
mod victims;
