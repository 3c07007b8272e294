//! What the spawner has made and not yet taken away, so that its next life can.
//!
//! An entry is written *before* what it names is made: whatever a sandbox has (slot, user,
//! directories by its id) follows from the first of its entries, and a process whose number was
//! not written yet is found in the slot. It lives in `/run/hearth`, which a reboot empties, as it
//! ends the processes; so nothing is synced to a disk, and writing one costs under a microsecond.
//!
//! The file has a line for each entry: a checksum, a space, JSON. A line that was being written
//! when its writer was killed is torn; it was of something not begun, and is left out and counted.

mod entry;
mod file;
mod line;
#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests;

pub use entry::{Entry, Life, Lives};
pub use file::{Journal, JournalError, Replay};
pub use line::{Lines, read};
