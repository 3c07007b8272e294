//! Faults of sandboxes to decisions, decisions to what is done, and what came of it.
//!
//! - [`fault`]: what happened to a sandbox.
//! - [`decide`]: what is to be done about it, without a clock and without a system call.
//! - [`budget`]: how often that may be.
//! - [`audit`]: each decision and each outcome, in a file that shows whether it was changed.
//! - [`memory`]: what of it the node has.
//! - [`healer`]: all of it together, for who has the sandboxes.

pub mod audit;
pub mod budget;
pub mod decide;
pub mod fault;
pub mod healer;
pub mod memory;
mod pending;

pub use fault::{Failing, Fault, Mode, What};
pub use healer::{Healer, Verdict};
