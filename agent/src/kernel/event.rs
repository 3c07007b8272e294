//! Bytes of the ring to events.

use hearth_abi::{Kind, MARK_BYTES, Mark, TEXT_BYTES, Text};
use thiserror::Error;

/// One record from the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(
    clippy::large_enum_variant,
    reason = "events live in fixed queues, where a box would cost an allocation each"
)]
pub enum Event {
    /// A boundary passed by a task.
    Mark(Kind, Mark),
    /// Names that belong to a mark or a cgroup.
    Text(Kind, Text),
}

/// A record that is not one of ours: kernel and user side were built from different sources.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum DecodeError {
    /// Too short for a kind.
    #[error("a record of {0} bytes is too short to name its kind")]
    Short(usize),
    /// Unknown kind.
    #[error("a record names kind {0}, which this build does not know")]
    Kind(u16),
    /// Wrong length for its kind.
    #[error("a {kind:?} record has {actual} bytes instead of {expected}")]
    Length {
        /// The record's kind.
        kind: Kind,
        /// Its length.
        actual: usize,
        /// The length of such records.
        expected: usize,
    },
}

impl Event {
    /// Decodes one record.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let [low, high, ..] = *bytes else {
            return Err(DecodeError::Short(bytes.len()));
        };
        let raw = u16::from_ne_bytes([low, high]);
        let kind = Kind::from_u16(raw).ok_or(DecodeError::Kind(raw))?;
        let expected = if kind.is_text() {
            TEXT_BYTES
        } else {
            MARK_BYTES
        };
        if bytes.len() != expected {
            return Err(DecodeError::Length {
                kind,
                actual: bytes.len(),
                expected,
            });
        }
        // SAFETY: the length was checked, and both types are `repr(C)` without padding and
        // made of integers only, so that any bytes are a value; the read is unaligned.
        Ok(unsafe {
            if kind.is_text() {
                Self::Text(kind, bytes.as_ptr().cast::<Text>().read_unaligned())
            } else {
                Self::Mark(kind, bytes.as_ptr().cast::<Mark>().read_unaligned())
            }
        })
    }
}
