//! Events of the `oom` signal to captures: what a kill for want of memory would have destroyed.

pub mod address;
pub mod assembler;
pub mod before;
pub mod cgroup_state;
mod command;
pub mod enough;
mod fields;
pub mod format;
pub mod keeper;
pub mod known;
pub mod limit;
pub mod links;
pub mod looker;
pub mod mappings;
pub mod missing;
pub mod model;
pub mod recorder;
mod remembered;
#[cfg(test)]
pub(crate) mod samples;
pub mod sentence;
pub mod store;
pub mod symbols;

pub use model::{Absent, Capture, CaptureId, Completeness, Constraint, Known, Reason};
