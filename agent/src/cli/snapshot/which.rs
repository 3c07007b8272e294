//! Which snapshot is meant.

use std::str::FromStr;

use hearth_runtime::snapshot::Snapshot;

/// Digits that must be given.
const LEAST: usize = 4;

/// An id, or its first digits.
#[derive(Clone, Debug)]
pub(super) struct Which(String);

impl FromStr for Which {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let is_hex = |byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if (LEAST..=64).contains(&text.len()) && text.bytes().all(is_hex) {
            return Ok(Self(text.to_owned()));
        }
        Err(format!(
            "must be the first {LEAST} to 64 hexadecimal digits of an id, as `hearth snapshot list` \
             shows them"
        ))
    }
}

impl Which {
    /// The only one of `all` that is meant.
    pub(super) fn find(&self, all: &[Snapshot]) -> anyhow::Result<Snapshot> {
        let mut found = all
            .iter()
            .filter(|one| one.id.to_string().starts_with(&self.0));
        match (found.next(), found.next()) {
            (Some(one), None) => Ok(one.clone()),
            (None, _) => anyhow::bail!(
                "there is no snapshot {}: `hearth snapshot list` shows what there is",
                self.0
            ),
            (Some(one), Some(other)) => anyhow::bail!(
                "{} may be {} or {}: give more digits",
                self.0,
                one.id,
                other.id
            ),
        }
    }
}

/// All that are meant; nothing is done where one of them is not clear.
pub(super) fn find_all(all: &[Snapshot], ids: &[Which]) -> anyhow::Result<Vec<Snapshot>> {
    ids.iter().map(|id| id.find(all)).collect()
}
