//! The audit file: each decision before it is acted upon, and each outcome, one JSON object a line.
//!
//! Lines are chained: each has the SHA-256 of the chain of the one before and of its own text. So a
//! line that was changed, taken out or put in shows, in the file and in those that were rotated
//! away before. How long the chain is stands in a file of its own, so that missing last lines show,
//! too. Whoever can write the files as a whole can also write a chain that is right: what was told
//! to a collector has the chain of its line, and cannot be taken back.

mod chain;
mod entry;
mod file;
mod folder;
mod standing;

pub use chain::{Break, Lines, Link, Read, Why, read};
pub use entry::{Begin, Decided, Entry, Fails, Line, Open, Outcome, Raised, Resolved};
pub use file::{Audit, AuditError, Opened};
pub use folder::{Files, Found, Wanted};
pub use standing::Standing;

#[cfg(test)]
mod tests;
