//! Snapshots: states that sandboxes are restored from, each published whole or not at all.
//!
//! ```text
//! lock                          held for a moment by whoever publishes, removes or notes
//! .new-…/                       one that is being made; its maker holds a lock on it
//! shop.7.CONFIG/                of one function, version and configuration:
//!   3.ID/                       its third generation
//!     memory state [disk]       what was saved; sealed, it never changes
//!     manifest.json             says what these are; its digest is the snapshot's id
//!     sealed.json               which files these are on this node: what a restore looks at,
//!                               for reading a guest's memory takes longer than a restore may
//!     failures.json             restores that failed, if any
//!     used                      of a busy one: that it was restored, so that it never is again
//! ```
//!
//! It knows nothing of how a state came to be: to this store it is bytes.

mod collect;
mod cpu;
mod draft;
mod error;
mod failures;
mod file;
mod folder;
mod id;
mod manifest;
mod restore;
mod sealed;
mod sparse;
mod step;
mod store;
#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests;
mod verify;

pub use collect::Collected;
pub use cpu::Cpu;
pub use draft::{Description, Draft};
pub use error::{Refusal, Remedy, SnapshotError};
pub use failures::Failures;
pub use id::{Digest, DigestError, Generation, Key, SnapshotId};
pub use manifest::{Kind, MAX_MANIFEST, MAX_STATE, Manifest, ManifestError, Part, Region};
pub use restore::{Host, Opened};
pub use sparse::write as write_memory;
pub use store::{Bounds, Snapshot, Store};
pub use verify::Verified;
