//! Functions: what is deployed, and the sandboxes that run it.
//!
//! - [`definition`]: what a function is, as a person writes it; [`source`]: where its layers are.
//! - [`store`]: the versions that were deployed, on disk.
//! - [`problem`]: what is wrong with what was asked for.

pub mod definition;
pub mod problem;
pub mod source;
pub mod store;

pub use definition::Definition;
pub use problem::{Kind, Problem};
pub use source::Source;
