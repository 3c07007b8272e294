//! Starts function sandboxes fast, safely, and never leaks one.
//!
//! Synchronous, and it knows nothing of eBPF or telemetry: what happens is told by plain types.
//!
//! - [`id`]: names of sandboxes, their lives, requests and functions, each parsed in one place.
//! - [`cgroup`]: limits, usage, pressure and ends of the processes of one sandbox, on v1, v2 and
//!   hybrid hosts.
//! - [`channel`]: the framed stream between who runs a sandbox and what is inside of it.
//! - [`heap`]: what garbage collectors are told of a memory limit.
//! - [`invoke`]: the function interface, the AWS Lambda Runtime API.
//! - [`journal`]: what the spawner has made and not yet taken away.
//! - [`pool`]: how many instances of a function are kept, and which; decided without a clock or a
//!   system call.
//! - [`private`]: directories that are nobody else's.
//! - [`process`]: one process for certain, by its number and its start.
//! - [`rootfs`]: what is at `/` in a sandbox, from layers that are not trusted.
//! - [`sandbox`]: what runs one instance of a function, and the words in which it is spoken with.
//! - [`seccomp`]: which system calls the code in a sandbox may make.
//! - [`snapshot`]: states that sandboxes are restored from, published whole or not at all.

#[cfg(feature = "host")]
pub mod cgroup;
pub mod channel;
pub mod heap;
pub mod id;
pub mod invoke;
#[cfg(feature = "host")]
pub mod journal;
#[cfg(feature = "host")]
pub mod pool;
#[cfg(feature = "host")]
pub mod private;
pub mod process;
#[cfg(feature = "host")]
pub mod rootfs;
pub mod sandbox;
pub mod seccomp;
#[cfg(feature = "host")]
pub mod snapshot;
