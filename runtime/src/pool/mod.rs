//! How many instances of a function are kept, and which.
//!
//! Nothing in here has a clock, does a system call or draws a random number: what happened comes
//! in as an [`Input`] with its [`Moment`], what is to be done goes out as [`Action`]s. The agent
//! drives a [`Fleet`] with what happens on its node, the simulator drives the same one with a trace,
//! and inputs that were recorded give the same actions again.
//!
//! - [`Fleet`]: the pools of a node, which share its memory; [`Pool`]: those of one function.
//! - [`policy`]: how many there should be, one file a rule.
//! - [`simulate`]: what a policy would do, on a trace.
//! - [`BackOff`]: the pause before the next attempt at what keeps failing.

mod back_off;
mod fleet;
mod function;
mod greedy_dual;
mod input;
mod moment;
pub mod policy;
#[cfg(test)]
mod properties;
mod settings;
pub mod simulate;
mod starts;
mod thrift;

pub use back_off::BackOff;
pub use fleet::Fleet;
pub use function::{Pool, Size};
pub use input::{Action, Input, Instance, Reason, Refusal, Retired, Served, Ticket};
pub use moment::Moment;
pub use settings::Settings;
