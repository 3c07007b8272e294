//! Functions: what is deployed, and the sandboxes that run it.
//!
//! - [`definition`]: what a function is, as a person writes it; [`source`]: where its layers are.
//! - [`store`]: the versions that were deployed, on disk.
//! - [`manager`]: deploys, invokes and removes them; [`pool`]: their instances, in sandboxes of a
//!   [`node`].
//! - [`invocation`]: what became of a request; [`logs`]: what functions wrote.
//! - [`starts`]: how functions started, as somebody else saw it.
//! - [`schedule`]: when they are to be warm, whatever was asked before.
//! - [`problem`]: what is wrong with what was asked for.

mod adopt;
pub mod clock;
pub mod definition;
mod failure;
#[cfg(test)]
pub(crate) mod fake;
mod function;
pub mod invocation;
mod job;
pub mod logs;
pub mod manager;
pub mod node;
mod pool;
pub mod problem;
mod refused;
pub mod schedule;
pub mod source;
pub mod starts;
pub mod store;
mod tally;
pub mod view;
mod watch;
mod weight;
mod workers;

pub use definition::Definition;
pub use manager::Manager;
pub use pool::Recording;
pub use problem::{Kind, Problem};
pub use source::Source;
