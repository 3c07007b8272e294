//! Starts function sandboxes fast, safely, and never leaks one.
//!
//! Synchronous, and it knows nothing of eBPF or telemetry: what happens is told by plain types.
//!
//! - [`cgroup`]: limits, usage, pressure and ends of the processes of one sandbox, on v1, v2 and
//!   hybrid hosts.

pub mod cgroup;
