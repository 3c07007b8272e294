//! Waits for and holds of the cgroup locks, from the kernel's histograms and its long waits.

mod node;

pub use node::{CgroupNode, Hierarchy};
