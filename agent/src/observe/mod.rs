//! Kernel events to observations.

pub mod cgroup_lock;
pub mod cold_start;
pub mod healing;
pub mod identity;
pub mod oom;
pub mod pool;
pub mod recording;
pub mod retransmit;
mod text;
