//! All that `hearth-init` must know to start a function.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::id::FunctionName;

/// How to start a function.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    /// Which.
    pub function: FunctionName,
    /// Its version, told again to whoever finds the sandbox later.
    pub version: u32,
    /// What is at `/`.
    pub root: Root,
    /// What to run.
    pub program: Program,
    /// System calls that it may make beside the default ones, by name.
    #[serde(default)]
    pub syscalls: Vec<String>,
    /// Descriptors that one process may have open.
    pub open_files: u64,
    /// Bytes of its memory limit, for collectors that size their heaps by it.
    #[serde(default)]
    pub memory_bytes: Option<u64>,
    /// Whether its memory should be in huge pages.
    #[serde(default)]
    pub huge_pages: HugePages,
    /// What it sees of the network.
    #[serde(default)]
    pub network: Network,
}

/// What is at `/` in a sandbox: layers that nobody can write to, and above them one that only this
/// sandbox has, in memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Root {
    /// Directories as the node sees them, the lowest first; at least one.
    pub layers: Vec<PathBuf>,
    /// Bytes that may be written, all in all.
    pub writable_bytes: u64,
}

/// What to run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// The program, by its absolute path or by a name that is looked up in `PATH`, and its arguments.
    pub command: Vec<String>,
    /// Its environment, to which those of the Runtime API are added.
    #[serde(default)]
    pub environment: Vec<(String, String)>,
    /// Where it begins.
    pub directory: PathBuf,
}

/// Whether memory is in huge pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HugePages {
    /// As the node has it.
    #[default]
    Node,
    /// Never: small sandboxes stay small.
    Never,
}

/// What a function sees of the network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Network {
    /// Its own loopback, with the Runtime API on it.
    #[default]
    Loopback,
    /// A link to the spawner's bridge, too.
    Veth,
}
