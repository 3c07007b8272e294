//! How many instances there should be: one file a rule, all behind one trait.
//!
//! - [`Fixed`]: each is kept for the same time.
//! - [`Quantile`]: as many stand ready as are asked for during a start.
//! - [`Hybrid`]: keeps and pre-warms by a histogram of idle times.
//! - [`Concurrency`]: as many as are at work on average, with headroom.
//! - [`Adaptive`]: keeps one while it is worth its memory, and has one before it is needed.
//! - [`Damped`]: one of them, without the dips of its target.

mod adaptive;
mod choice;
mod concurrency;
mod damped;
mod fixed;
mod hybrid;
mod quantile;

use std::time::Duration;

use super::Moment;
pub use adaptive::Adaptive;
pub use choice::{Choice, UnknownPolicy};
pub use concurrency::Concurrency;
pub use damped::Damped;
pub use fixed::Fixed;
pub use hybrid::Hybrid;
pub use quantile::Quantile;

/// Says how many instances of one function there should be. It has no clock and draws nothing: the
/// same history gives the same plan.
pub trait Policy: Send {
    /// A request came in.
    fn arrived(&mut self, now: Moment);

    /// An instance is done with one, which took so long.
    fn served(&mut self, now: Moment, work: Duration);

    /// A start was measured, from the claim until it was ready.
    fn measured(&mut self, now: Moment, start: Duration);

    /// What there should be. It is asked after everything that happens, and when it wanted to be.
    fn plan(&mut self, seen: Seen) -> Plan;

    /// The memory-time of idle instances since it was last asked this. Nothing of who does not go by
    /// what the node spends on that.
    fn spent(&mut self) -> Spent {
        Spent::default()
    }
}

/// Memory-time of idle instances, in byte seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Spent {
    /// Of those that there are.
    pub ours: f64,
    /// Of those that there would be if each was kept for ten minutes,
    pub fixed: f64,
    /// and if [`Hybrid`] said which are kept.
    pub hybrid: f64,
}

/// What is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// When.
    pub now: Moment,
    /// Requests that are at work, or wait.
    pub demand: u32,
    /// Instances that are at work.
    pub busy: u32,
    /// Instances that wait for work.
    pub ready: u32,
    /// Instances that start.
    pub starting: u32,
    /// Memory that one of them takes, in bytes.
    pub memory_bytes: u64,
    /// Memory that an instance of any function takes, on average over the functions of the node.
    pub typical_bytes: u64,
    /// What the node spends on idle instances by what it may, in thousandths; 0 where it is not
    /// known. See [`Spent`].
    pub spent_permille: u32,
}

/// What should be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Instances at least: at work, idle and starting ones together. None is retired below this.
    pub target: u32,
    /// Of those above it, one is retired when it has been idle for so long.
    pub keep_alive: Duration,
    /// When the plan may be another one, even if nothing happens until then.
    pub again: Option<Moment>,
}
