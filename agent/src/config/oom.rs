//! `[oom]`: what becomes of captures.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

use super::{Recorder, Size};
use crate::observe::oom::store::Bounds;

/// Most bytes of a thread's stack.
const MAX_STACK: u32 = 4096;
/// Fewest bytes of all captures: one of a process with many threads fits.
const MIN_BYTES: u64 = 1 << 20;

/// `[oom]`: what becomes of captures.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Oom {
    /// Their directory.
    #[serde(deserialize_with = "absolute")]
    pub dir: PathBuf,
    /// How many are kept.
    pub max_captures: NonZeroUsize,
    /// How many bytes of them are kept.
    #[serde(deserialize_with = "not_tiny")]
    pub max_bytes: Size,
    /// Whether arguments are masked.
    pub mask: bool,
    /// Bytes of each thread's stack.
    #[serde(deserialize_with = "small")]
    pub stack_bytes: u32,
    /// `[oom.recorder]`.
    pub recorder: Recorder,
}

impl Default for Oom {
    fn default() -> Self {
        Self {
            dir: "/var/lib/hearth/oom".into(),
            max_captures: NonZeroUsize::new(1000).unwrap_or(NonZeroUsize::MIN),
            max_bytes: Size(256 << 20),
            mask: true,
            stack_bytes: 0,
            recorder: Recorder::default(),
        }
    }
}

impl Oom {
    /// The bounds of the store.
    #[must_use]
    pub const fn bounds(&self) -> Bounds {
        Bounds {
            captures: self.max_captures.get(),
            bytes: self.max_bytes.0,
        }
    }
}

fn absolute<'de, D: Deserializer<'de>>(from: D) -> Result<PathBuf, D::Error> {
    let path = PathBuf::deserialize(from)?;
    let plain = path.is_absolute() && path != Path::new("/");
    if plain && !path.components().any(|part| part.as_os_str() == "..") {
        return Ok(path);
    }
    Err(D::Error::custom(format!(
        "\"{}\" is not a directory for captures; write an absolute path without `..`, such as \
         \"/var/lib/hearth/oom\"",
        path.display()
    )))
}

fn not_tiny<'de, D: Deserializer<'de>>(from: D) -> Result<Size, D::Error> {
    let size = Size::deserialize(from)?;
    if size.0 >= MIN_BYTES {
        return Ok(size);
    }
    Err(D::Error::custom(format!(
        "\"{size}\" has no room for one large capture; write at least \"1MiB\""
    )))
}

fn small<'de, D: Deserializer<'de>>(from: D) -> Result<u32, D::Error> {
    let bytes = u32::deserialize(from)?;
    if bytes <= MAX_STACK {
        return Ok(bytes);
    }
    Err(D::Error::custom(format!(
        "{bytes} bytes of each stack are too many; write a number up to {MAX_STACK}, or 0 for none"
    )))
}
