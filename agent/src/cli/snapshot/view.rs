//! What is known of a snapshot, as `--json` prints it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use hearth_runtime::snapshot::{Kind, Manifest, Snapshot, SnapshotError, Store};
use serde::Serialize;

/// One snapshot; what is not known of it is null.
#[derive(Debug, Serialize)]
pub(super) struct View {
    pub(super) id: String,
    pub(super) function: String,
    pub(super) version: u32,
    pub(super) config: String,
    pub(super) generation: u64,
    pub(super) status: Status,
    /// Why it is not good.
    pub(super) why: Option<String>,
    pub(super) kind: Option<Kind>,
    pub(super) created_unix_ms: Option<u64>,
    pub(super) memory_bytes: Option<u64>,
    /// On the disk, all of it.
    pub(super) stored_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) path: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) failures: Option<BTreeMap<String, u32>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) manifest: Option<Manifest>,
}

/// Whether one can be restored, by what is known without reading its memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Status {
    Good,
    Quarantined,
    Used,
    Refused,
}

impl Status {
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Quarantined => "quarantined",
            Self::Used => "used",
            Self::Refused => "refused",
        }
    }
}

impl View {
    /// As `list` shows it.
    pub(super) fn of(store: &Store, snapshot: &Snapshot) -> Self {
        Self {
            path: None,
            failures: None,
            manifest: None,
            ..Self::whole(store, snapshot)
        }
    }

    /// As `inspect` shows it.
    pub(super) fn whole(store: &Store, snapshot: &Snapshot) -> Self {
        let manifest = store.manifest(snapshot);
        let failures = store.failures(snapshot);
        let (status, why) = status(store, snapshot, manifest.as_ref().err());
        let known = manifest.as_ref().ok();
        Self {
            id: snapshot.id.to_string(),
            function: snapshot.key.function.to_string(),
            version: snapshot.key.version,
            config: snapshot.key.config.to_string(),
            generation: snapshot.generation.0,
            status,
            why,
            kind: known.map(|known| known.kind),
            created_unix_ms: known.map(|known| known.created_unix_ms),
            memory_bytes: known.map(|known| known.memory.bytes),
            stored_bytes: store.disk_bytes(snapshot).ok(),
            path: Some(snapshot.path(store.directory())),
            failures: failures.ok().map(|failures| failures.counts),
            manifest: manifest.ok(),
        }
    }
}

fn status(
    store: &Store,
    snapshot: &Snapshot,
    refused: Option<&SnapshotError>,
) -> (Status, Option<String>) {
    if let Some(error) = refused {
        return (Status::Refused, Some(error.to_string()));
    }
    match store
        .failures(snapshot)
        .map(|failures| failures.quarantined)
    {
        Ok(Some(why)) => {
            return (
                Status::Quarantined,
                Some(format!("its restores failed {why}")),
            );
        }
        Err(error) => return (Status::Refused, Some(error.to_string())),
        Ok(None) => {}
    }
    match store.is_used(snapshot) {
        Ok(true) => {
            let why = "it was taken of a sandbox at work, and went on once".to_owned();
            (Status::Used, Some(why))
        }
        Ok(false) => (Status::Good, None),
        Err(error) => (Status::Refused, Some(error.to_string())),
    }
}
