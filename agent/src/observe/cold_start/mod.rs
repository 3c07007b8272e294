//! Marks to cold starts.
//!
//! [`Tracker`] collects the marks of each start until it ends; [`fold::fold`] walks back from
//! the end along the chain and cuts the time since the opener into phases.

mod causes;
mod chain;
mod cut;
pub mod end;
pub mod fold;
mod image;
mod model;
mod parts;
mod ready;
mod rules;
mod settings;
pub mod start;
mod tracker;

pub use model::{ColdStart, LockHolder, PartSpan, Phase, PhaseName, Ready, Waited};
pub use ready::{Condition, ReadyRule, ReadyRuleError};
pub use rules::{Executable, ExecutableError, Role, StartRule, VMMS};
pub use settings::{Limits, Mode, Settings};
pub use tracker::{Claim, Finished, Reason, Stats, Tracker};
