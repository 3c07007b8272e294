//! The same [`Fleet`](super::Fleet) as on a node, driven with a trace in simulated time.
//!
//! - [`Trace`]: functions, and when who asked for which; [`Synthetic`] makes one up.
//! - [`run`]: what a policy does with it, as a [`Report`].
//! - [`Clairvoyant`]: what could have been done, had the trace been known beforehand.

mod clairvoyant;
mod draw;
mod engine;
mod report;
mod synthetic;
mod trace;

pub use clairvoyant::Clairvoyant;
pub use engine::{Options, run};
pub use report::{Report, Shares};
pub use synthetic::{Generator, Synthetic};
pub use trace::{Arrival, Builder, Function, TooMany, Trace, Trigger};
