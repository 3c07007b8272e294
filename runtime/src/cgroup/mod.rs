//! Cgroups of sandboxes, on v1, v2 and hybrid hosts.
//!
//! - [`Layout`] finds which hierarchy carries which controller, [`Subtree`] takes our part of each.
//! - [`Cgroup`] is one sandbox's: [`Limits`] go in and are read back, [`Usage`] and [`Pressure`]
//!   come out, [`Events`] tell of its end; it is frozen, killed, reclaimed and deleted.
//! - [`Pool`] keeps clean ones ready.
//!
//! All files are reached through directories that are held open: no path is walked twice, and no
//! link followed. cgroups-rs reads processor time and numbers of processes, through the same open
//! directories; where the rest of it would not do, the file that does it instead says why.

mod apply;
mod clean;
mod dir;
mod error;
mod events;
mod flat;
mod freeze;
mod group;
mod kill;
mod layout;
pub mod limits;
pub mod pressure;
mod reclaim;
mod slot;
mod slots;
mod subtree;
pub mod usage;

pub use error::{Error, Result};
pub use events::{Events, Happened};
pub use group::Cgroup;
pub use layout::{Controller, Hierarchy, Layout, Version};
pub use limits::{Limits, Outcome, Report, Setting};
pub use pressure::{Pressure, Resource, Share, Trigger};
pub use slot::{Baseline, Slot};
pub use slots::{Bounds, Counts, Pool};
pub use subtree::{Name, Place, Subtree, step_down};
pub use usage::Usage;
