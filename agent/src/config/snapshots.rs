//! `[snapshots]`: where they are, and how many there may be.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use hearth_runtime::snapshot::Bounds;
use serde::{Deserialize, Deserializer, Serialize};

use super::Size;
use super::functions::Absolute;

/// `[snapshots]`: where they are, and how many there may be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Snapshots {
    /// Their directory; `snapshots` beside `functions.state_dir` where it is left out.
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "directory"
    )]
    pub dir: Option<PathBuf>,
    /// Generations that are kept of one function, version and configuration.
    pub generations: NonZeroUsize,
    /// Bytes of the disk for all of them.
    pub max_bytes: Size,
}

impl Default for Snapshots {
    fn default() -> Self {
        let bounds = Bounds::default();
        Self {
            dir: None,
            generations: NonZeroUsize::new(bounds.generations).unwrap_or(NonZeroUsize::MIN),
            max_bytes: Size(bounds.bytes),
        }
    }
}

impl Snapshots {
    /// Where they are, of an agent that keeps its functions in `state_dir`.
    #[must_use]
    pub fn dir(&self, state_dir: &Path) -> PathBuf {
        let beside = || state_dir.with_file_name("snapshots");
        self.dir.clone().unwrap_or_else(beside)
    }

    /// As the store takes them.
    #[must_use]
    pub fn bounds(&self) -> Bounds {
        Bounds {
            generations: self.generations.get(),
            bytes: self.max_bytes.0,
            ..Bounds::default()
        }
    }
}

fn directory<'de, D: Deserializer<'de>>(from: D) -> Result<Option<PathBuf>, D::Error> {
    Absolute::deserialize(from).map(|path| Some(path.0))
}
