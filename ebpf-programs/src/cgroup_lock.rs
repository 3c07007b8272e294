//! The `cgroup_lock` signal: who waits for the locks of cgroups, for how long, and who holds them.
//!
//! Waits come from the tracepoints of contention, on every kernel (`wait`); holds from the
//! functions that take and drop a lock (`functions`, `hold`), else as upper bounds from successive
//! ends of waits (`wait`). What an attach waits for beside locks is in `rcu`.

mod counts;
mod functions;
mod hold;
mod rcu;
mod reference;
mod rstat;
mod settings;
mod stack;
mod wait;
mod which;
