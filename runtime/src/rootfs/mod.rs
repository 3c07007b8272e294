//! What is at `/` in a sandbox: layers that others made, and that are not trusted.
//!
//! A layer is a tar archive (of an OCI image, or a function's own). [`apply`] unpacks it into a
//! directory, one layer over the other, and writes nothing outside of that directory, whatever the
//! archive says; what it refuses, it names. An [`image`] is layers with a manifest.

mod apply;
mod archive;
pub mod image;
mod name;
mod tree;

pub use apply::{Applied, LayerError, Limits, apply};
pub use name::{NameError, NameProblem};
