//! Bytes of the ring to events.

use hearth_abi::{
    Kind, LOCK_WAIT, LOCK_WAIT_BYTES, LockWait, MARK_BYTES, Mark, OomEnd, OomKill, OomMemory,
    OomRecord, OomThread, OomVma, TEXT_BYTES, Text,
};
use thiserror::Error;

/// One record from the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(
    clippy::large_enum_variant,
    reason = "events live in fixed queues, where a box would cost an allocation each"
)]
pub enum Event {
    /// A boundary passed by a task.
    Mark(Kind, Mark),
    /// Names that belong to a mark or a cgroup.
    Text(Kind, Text),
    /// Of the `oom` signal.
    Oom(OomEvent),
    /// A long wait for a lock of cgroups.
    LockWait(Box<LockWait>),
}

/// One record of the `oom` signal. Rare and large, so not kept in the queue itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OomEvent {
    /// A process was killed.
    Kill(Box<OomKill>),
    /// A thread of it exits.
    Thread(Box<OomThread>),
    /// Memory of it.
    Memory(Box<OomMemory>),
    /// A mapping of it.
    Vma(Box<OomVma>),
    /// It is gone.
    End(Box<OomEnd>),
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
    /// Wrong length for a record of its number.
    #[error("a record of kind {kind:#x} has {actual} bytes instead of {expected}")]
    RecordLength {
        /// The record's number.
        kind: u16,
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
        if let Some(record) = OomRecord::from_u16(raw) {
            return decode_oom(record, bytes).map(Self::Oom);
        }
        if raw == LOCK_WAIT {
            return decode_lock_wait(bytes);
        }
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

fn decode_lock_wait(bytes: &[u8]) -> Result<Event, DecodeError> {
    if bytes.len() != LOCK_WAIT_BYTES {
        return Err(DecodeError::RecordLength {
            kind: LOCK_WAIT,
            actual: bytes.len(),
            expected: LOCK_WAIT_BYTES,
        });
    }
    // SAFETY: the length was checked; `repr(C)`, integers only, no padding.
    Ok(Event::LockWait(unsafe { boxed(bytes) }))
}

fn decode_oom(record: OomRecord, bytes: &[u8]) -> Result<OomEvent, DecodeError> {
    if bytes.len() != record.bytes() {
        return Err(DecodeError::RecordLength {
            kind: record as u16,
            actual: bytes.len(),
            expected: record.bytes(),
        });
    }
    // SAFETY: the length was checked, and the types are `repr(C)` without padding and made of
    // integers only, so that any bytes are a value; the reads are unaligned.
    Ok(unsafe {
        match record {
            OomRecord::Kill => OomEvent::Kill(boxed(bytes)),
            OomRecord::Thread => OomEvent::Thread(boxed(bytes)),
            OomRecord::Memory => OomEvent::Memory(boxed(bytes)),
            OomRecord::Vma => OomEvent::Vma(boxed(bytes)),
            OomRecord::End => OomEvent::End(boxed(bytes)),
        }
    })
}

/// # Safety
/// `bytes` are as many as a `T` has, and any bytes are a `T`.
unsafe fn boxed<T>(bytes: &[u8]) -> Box<T> {
    // SAFETY: the caller's promise.
    Box::new(unsafe { bytes.as_ptr().cast::<T>().read_unaligned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_wait_is_decoded_at_its_length_only() {
        let mut bytes = vec![7; LOCK_WAIT_BYTES];
        bytes[..2].copy_from_slice(&LOCK_WAIT.to_ne_bytes());
        let Ok(Event::LockWait(wait)) = Event::decode(&bytes) else {
            panic!("not decoded");
        };
        assert_eq!(
            (wait.flags, wait.stack[31]),
            (0x0707, 0x0707_0707_0707_0707)
        );
        for actual in [2, LOCK_WAIT_BYTES - 1, LOCK_WAIT_BYTES + 1] {
            bytes.resize(actual, 0);
            let error = DecodeError::RecordLength {
                kind: LOCK_WAIT,
                actual,
                expected: LOCK_WAIT_BYTES,
            };
            assert_eq!(Event::decode(&bytes), Err(error));
        }
    }
}
