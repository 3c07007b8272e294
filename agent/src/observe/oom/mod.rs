//! Events of the `oom` signal to captures: what a kill for want of memory would have destroyed.

pub mod before;
pub mod known;
