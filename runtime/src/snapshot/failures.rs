//! Restores that failed: a generation that fails the same way again and again is left alone.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::error::SnapshotError;
use super::file::{self, Fault};
use super::store::{Snapshot, Store};

/// The file's name, where there were any.
const FAILURES: &str = "failures.json";
/// Bytes of it.
const MAX_FAILURES: u64 = 8 << 10;
/// Ways to fail that are told apart; all further ones are one.
const MAX_WAYS: usize = 16;
/// Bytes of the name of one.
const MAX_NAME: usize = 64;
/// The name of all further ones.
const OTHERS: &str = "others";

/// What is known of the restores of one snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Failures {
    /// How often they failed since one went well, by the way in which.
    pub counts: BTreeMap<String, u32>,
    /// It is not restored any more, and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quarantined: Option<String>,
}

impl Store {
    /// What is known of its restores.
    pub fn failures(&self, snapshot: &Snapshot) -> Result<Failures, SnapshotError> {
        let Some((_, folder)) = self.any(snapshot)? else {
            return Ok(Failures::default());
        };
        if !folder.is_there(FAILURES)? {
            return Ok(Failures::default());
        }
        let refused = match file::read(&folder, FAILURES, MAX_FAILURES) {
            Ok(bytes) => match serde_json::from_slice(&bytes) {
                Ok(failures) => return Ok(failures),
                Err(error) => error.to_string(),
            },
            Err(Fault::Refused(refusal)) => refusal.to_string(),
            Err(Fault::Gone) => return Ok(Failures::default()),
            Err(Fault::Failed(error)) => return Err(error),
        };
        // There were some, and how many is unknown: not to be restored.
        Ok(Failures {
            counts: BTreeMap::new(),
            quarantined: Some(format!("{FAILURES}: {refused}")),
        })
    }

    /// Notes that a restore of it failed in this way, which must be the same word for the same
    /// failure. When it has done so as often as it may, it is in quarantine.
    pub fn failed(&self, snapshot: &Snapshot, way: &str) -> Result<Failures, SnapshotError> {
        let _lock = self.lock()?;
        let mut failures = self.failures(snapshot)?;
        if failures.quarantined.is_none() {
            failures.count(way, self.bounds.failures);
            self.note(snapshot, &failures)?;
        }
        Ok(failures)
    }

    /// Notes that a restore of it went well: what failed before was no fault of its own.
    pub fn worked(&self, snapshot: &Snapshot) -> Result<(), SnapshotError> {
        if self.failures(snapshot)?.counts.is_empty() {
            return Ok(());
        }
        let _lock = self.lock()?;
        let failures = self.failures(snapshot)?;
        if failures.quarantined.is_none() {
            self.note(snapshot, &Failures::default())?;
        }
        Ok(())
    }

    fn note(&self, snapshot: &Snapshot, failures: &Failures) -> Result<(), SnapshotError> {
        let Some((_, folder)) = self.any(snapshot)? else {
            return Err(SnapshotError::Gone(snapshot.id));
        };
        // Text and numbers: always JSON.
        let bytes = serde_json::to_vec(failures).unwrap_or_default();
        folder.replace(FAILURES, &bytes)
    }
}

impl Failures {
    fn count(&mut self, way: &str, most: u32) {
        let mut way: String = way.chars().filter(|ch| !ch.is_control()).collect();
        let end = (0..=MAX_NAME).rev().find(|end| way.is_char_boundary(*end));
        way.truncate(end.unwrap_or_default());
        if !self.counts.contains_key(&way) && self.counts.len() >= MAX_WAYS {
            OTHERS.clone_into(&mut way);
        }
        let count = self.counts.entry(way.clone()).or_default();
        *count += 1;
        if *count >= most {
            self.quarantined = Some(format!("{count} times the same way: {way}"));
        }
    }
}
