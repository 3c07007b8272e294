//! The same [`Fleet`](super::Fleet) as on a node, driven with a trace in simulated time.
//!
//! - [`Trace`]: functions, and when who asked for which; [`Synthetic`] makes one up, [`Reading`] reads
//!   one from a file.
//! - [`run`]: what a policy does with it, as a [`Report`].
//! - [`Clairvoyant`]: what could have been done, had the trace been known beforehand.

pub mod azure_2019;
pub mod azure_2021;
mod clairvoyant;
mod draw;
mod engine;
mod lines;
pub mod plot;
mod reading;
pub mod recorded;
mod report;
mod synthetic;
mod trace;

pub use clairvoyant::Clairvoyant;
pub use engine::{Options, run};
pub use lines::ReadError;
pub use reading::{Format, Reading, UnknownFormat};
pub use report::{Report, Shares};
pub use synthetic::{Generator, Synthetic, UnknownGenerator};
pub use trace::{Arrival, Builder, Function, TooMany, Trace, Trigger};
