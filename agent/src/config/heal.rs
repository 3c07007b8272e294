//! `[heal]`: what becomes of decisions, and how many there may be.

use std::path::{Path, PathBuf};

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

use super::Size;
use crate::heal::budget::{OF_FUNCTION, OF_NODE};
use crate::heal::healer::Limits;

/// Fewest bytes of the audit: one file of it holds some hundred decisions.
const MIN_BYTES: u64 = 1 << 20;
/// Most bytes: each file is read as a whole.
const MAX_BYTES: u64 = 1 << 30;

/// `[heal]`: what becomes of decisions, and how many there may be. Whether anything is done is said
/// of each function: its `heal`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Heal {
    /// Directory of the audit; `heal` beside `functions.state_dir` where it is left out.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "absolute")]
    pub audit_dir: Option<PathBuf>,
    /// Bytes of it.
    #[serde(deserialize_with = "bounded")]
    pub max_bytes: Size,
    /// Actions for one function in ten minutes.
    pub function_actions: u32,
    /// Actions on the node in ten minutes.
    pub node_actions: u32,
}

impl Default for Heal {
    fn default() -> Self {
        Self {
            audit_dir: None,
            max_bytes: Size(32 << 20),
            function_actions: OF_FUNCTION,
            node_actions: OF_NODE,
        }
    }
}

impl Heal {
    /// Where the audit is, of an agent that keeps its functions in `state_dir`.
    #[must_use]
    pub fn audit_dir(&self, state_dir: &Path) -> PathBuf {
        let beside = || state_dir.with_file_name("heal");
        self.audit_dir.clone().unwrap_or_else(beside)
    }

    /// As the healer takes them.
    #[must_use]
    pub const fn limits(&self) -> Limits {
        Limits {
            audit_bytes: self.max_bytes.0,
            of_function: self.function_actions,
            of_node: self.node_actions,
        }
    }
}

fn absolute<'de, D: Deserializer<'de>>(from: D) -> Result<Option<PathBuf>, D::Error> {
    let path = PathBuf::deserialize(from)?;
    if path.file_name().is_some() && crate::functions::source::is_plain(&path) {
        return Ok(Some(path));
    }
    Err(D::Error::custom(format!(
        "\"{}\" is no directory for the audit; write an absolute path without `..`, such as \
         \"/var/lib/hearth/heal\"",
        path.display()
    )))
}

fn bounded<'de, D: Deserializer<'de>>(from: D) -> Result<Size, D::Error> {
    let size = Size::deserialize(from)?;
    if (MIN_BYTES..=MAX_BYTES).contains(&size.0) {
        return Ok(size);
    }
    Err(D::Error::custom(format!(
        "\"{size}\" is no size for the audit; write \"1MiB\" to \"1GiB\""
    )))
}
