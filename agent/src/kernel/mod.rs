//! The kernel side: hook table, capabilities of this kernel, load, attach, drain, ledger.

pub mod attach;
pub mod btf;
pub mod capability;
pub mod cgroup_lock;
pub mod drain;
pub mod enrolment;
pub mod event;
pub mod image;
pub mod ledger;
mod object;
pub mod offsets;
pub mod oom;
pub mod probes;
pub mod program_log;
pub mod recursion;
pub mod retransmit;
pub mod symbols;
pub mod table;
mod take_out;
pub mod uprobes;
mod walk;
pub mod watch_share;
