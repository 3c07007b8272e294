//! Waits for and holds of the cgroup locks, from the kernel's histograms and its long waits.

mod by_cgroup;
mod node;
mod report;
mod times;
mod wait;
mod worst;

pub use by_cgroup::WaitsByCgroup;
pub use node::{CgroupNode, Hierarchy};
pub use report::{
    CgroupLine, HolderLine, LockLine, LockReport, StackNames, TaskLine, WaitLine, cgroup_lines,
    cgroups_since, counts_since, lock_lines, wait_lines, waits_of,
};
pub use times::{Summary, merged, percentile, since};
pub use wait::{Holder, Task, Wait, in_words};
pub use worst::Worst;
