//! Which system calls the code in a sandbox may make.
//!
//! An allow list: [`Profile::default`] has what programs need, a function may add from what is
//! [`left`](Profile::add), and some calls are for nobody. What is not allowed fails with `EPERM`
//! (`ENOSYS` where the call is newer than the list, so that a C library takes its older way) and
//! is told to a [`Listener`], which counts it by name.

mod filter;
mod listener;
mod profile;
mod tree;

pub use filter::{Filter, FilterError};
pub use listener::{Listener, Refusal};
pub use profile::{Profile, ProfileError};
