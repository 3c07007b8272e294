//! Names of snapshots and of what they are of; each is read in one place.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::id::FunctionName;

/// A digest, BLAKE3.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Digest([u8; 32]);

/// A text that is no digest, and so no id of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}`: must be 64 lowercase hexadecimal digits, as `hearth snapshot list --json` prints")]
pub struct DigestError(String);

/// One snapshot: the digest of its manifest, which has the digests of all else.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SnapshotId(Digest);

/// Counts the snapshots of one [`Key`], from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Generation(pub u64);

/// Of what a snapshot is: it restores this and nothing else. A function is a tenant, so that nothing
/// is shared across tenants either.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Key {
    /// The function.
    pub function: FunctionName,
    /// Its version.
    pub version: u32,
    /// Of all that it was started with.
    pub config: Digest,
}

impl Digest {
    /// That of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }

    pub(super) fn finish(hasher: &blake3::Hasher) -> Self {
        Self(*hasher.finalize().as_bytes())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&blake3::Hash::from_bytes(self.0).to_hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        let wrong = || DigestError(text.chars().take(80).collect());
        let digest = Self(
            *blake3::Hash::from_hex(text)
                .map_err(|_| wrong())?
                .as_bytes(),
        );
        // One spelling each: no capitals.
        if digest.to_string() == text {
            Ok(digest)
        } else {
            Err(wrong())
        }
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

impl TryFrom<String> for Digest {
    type Error = DigestError;

    fn try_from(text: String) -> Result<Self, DigestError> {
        text.parse()
    }
}

impl SnapshotId {
    /// That of the snapshot whose manifest has these bytes.
    #[must_use]
    pub fn of_manifest(bytes: &[u8]) -> Self {
        Self(Digest::of(bytes))
    }

    /// As many digits as tell snapshots of one node apart, for people.
    #[must_use]
    pub fn short(self) -> String {
        let mut text = self.to_string();
        text.truncate(12);
        text
    }
}

impl fmt::Display for SnapshotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for SnapshotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SnapshotId({self})")
    }
}

impl FromStr for SnapshotId {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        text.parse().map(Self)
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Generation {
    /// The one after it.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// The name of a generation's directory in that of its key.
    pub(super) fn directory(self, id: SnapshotId) -> String {
        format!("{self}.{id}")
    }

    /// What [`directory`](Self::directory) was given; none where the name is of something else.
    pub(super) fn of_directory(name: &str) -> Option<(Self, SnapshotId)> {
        let (generation, id) = name.split_once('.')?;
        let generation = Self(generation.parse().ok()?);
        let id = id.parse().ok()?;
        (generation.0 > 0 && generation.directory(id) == name).then_some((generation, id))
    }
}

impl Key {
    /// The name of its directory. Names of functions have no dot.
    pub(super) fn directory(&self) -> String {
        format!("{}.{}.{}", self.function, self.version, self.config)
    }

    /// The key of that directory; none where the name is of something else.
    pub(super) fn of_directory(name: &str) -> Option<Self> {
        let mut parts = name.splitn(3, '.');
        let key = Self {
            function: parts.next()?.parse::<FunctionName>().ok()?,
            version: parts.next()?.parse().ok()?,
            config: parts.next()?.parse().ok()?,
        };
        (key.directory() == name).then_some(key)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn names_are_read_as_they_are_written(bytes: [u8; 32], version: u32, generation in 1..=u64::MAX) {
            let digest = Digest(bytes);
            prop_assert_eq!(digest.to_string().parse(), Ok(digest));
            let key = Key { function: "shop-2".parse().unwrap(), version, config: digest };
            prop_assert_eq!(Key::of_directory(&key.directory()), Some(key));
            let (generation, id) = (Generation(generation), SnapshotId(digest));
            let name = generation.directory(id);
            prop_assert_eq!(Generation::of_directory(&name), Some((generation, id)));
        }

        #[test]
        fn any_text_is_a_name_only_as_it_would_be_written(text in "[0-9a-fA-F.+-]{0,70}|\\PC{0,40}") {
            if let Ok(id) = text.parse::<SnapshotId>() {
                prop_assert_eq!(id.to_string(), &*text);
            }
            if let Some(key) = Key::of_directory(&text) {
                prop_assert_eq!(key.directory(), &*text);
            }
        }
    }

    #[test]
    fn nothing_that_could_be_a_path_is_an_id() {
        let id = Digest::of(b"").to_string();
        assert!(id.parse::<SnapshotId>().is_ok());
        for text in ["", "..", &id[1..], &id.to_uppercase(), &format!("../{id}")] {
            assert!(text.parse::<SnapshotId>().is_err(), "{text}");
        }
        for name in ["0", "01", "+1", ""] {
            assert_eq!(Generation::of_directory(&format!("{name}.{id}")), None);
        }
        assert_eq!(Key::of_directory(&format!("shop.07.{id}")), None);
    }
}
