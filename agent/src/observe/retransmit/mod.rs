//! TCP segments sent again: by network namespace, cgroup and destination; and segments sent, of
//! which they are a share.

mod namespace;
mod sent;
mod tally;

pub use namespace::Netns;
pub use sent::{Sent, SentSegments};
pub use tally::{Destination, Resent, ResentBy, Tally};
