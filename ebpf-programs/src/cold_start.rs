//! The `cold_start` signal: boundaries passed by tasks, and parts of the work between them.
//!
//! Always on: `process`, `cgroups`, `listen`, `uprobes`. While something is watched:
//! `syscalls`, `sched`. Where this kernel has fentry: `functions`.

pub mod account;
mod cgroups;
mod exec;
mod functions;
mod listen;
mod process;
mod sched;
mod stamp;
mod syscalls;
mod uprobes;
pub mod watch;
