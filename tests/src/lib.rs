//! hearth against the real kernel, real programs, real containers.
//!
//! What the tests of this crate share: programs with a clock of their own
//! ([`programs`], [`report`]), the agent as a user runs it ([`trace`], [`daemon`], [`serving`]), what it says
//! ([`start`], [`metrics`], [`collector`], [`api`]), and the machine ([`clock`], [`cgroup`], [`charge`], [`node`], [`pen`], [`bundle`], [`machine`]).
//! What a test needs and does not find is a failure that names it, never a skip.

pub mod api;
pub mod bundle;
pub mod cgroup;
pub mod charge;
pub mod child;
pub mod clock;
pub mod collector;
pub mod daemon;
pub mod demo;
pub mod guest;
pub mod load;
pub mod machine;
pub mod metrics;
pub mod network;
pub mod node;
pub mod pen;
pub mod programs;
pub mod report;
pub mod requirement;
pub mod seed;
pub mod serving;
pub mod start;
pub mod storm;
pub mod trace;
pub mod whole;
