//! A capture as bytes: a header that tells version, length and checksum, then JSON.
//!
//! | bytes | what |
//! |---|---|
//! | 0..8 | `HEARTHOM` |
//! | 8..10 | version of the format, little-endian like all that follows: 1 |
//! | 10..12 | length of the header: 32 |
//! | 12..16 | encoding of the body: 1 is JSON, as `docs/schema/oom.schema.json` describes it |
//! | 16..24 | length of the body |
//! | 24..28 | CRC-32 of the body |
//! | 28..32 | CRC-32 of the 28 bytes before |
//!
//! JSON, because who finds such a file years later reads it with `tail -c +33`, and because a
//! member that a later version adds does not bother this one.

use thiserror::Error;

use super::model::Capture;

/// What every capture begins with.
pub const MAGIC: [u8; 8] = *b"HEARTHOM";
/// Version of the format that this build writes.
pub const VERSION: u16 = 1;
/// Length of the header, bytes.
pub const HEADER_BYTES: usize = 32;
/// The longest body, bytes: beyond it nothing is written, or read.
pub const MAX_BODY_BYTES: usize = 16 << 20;

const JSON: u32 = 1;

/// Bytes that are no capture.
#[derive(Debug, Error)]
pub enum FormatError {
    /// Too short for a header.
    #[error("{0} bytes are too few for a capture's header of {HEADER_BYTES}; it was cut off")]
    Short(usize),
    /// Something else.
    #[error("it does not begin with HEARTHOM; it is not a capture of hearth")]
    Magic,
    /// The header is damaged.
    #[error(
        "the header's checksum is {actual:#010x} and should be {expected:#010x}; it is damaged"
    )]
    Header {
        /// Of the bytes that are there.
        actual: u32,
        /// As written.
        expected: u32,
    },
    /// From another version.
    #[error(
        "it has version {0} of the format, and this build reads {VERSION}; take a newer hearth"
    )]
    Version(u16),
    /// Unknown encoding.
    #[error("its body has the encoding {0}, which this build does not know; take a newer hearth")]
    Encoding(u32),
    /// Longer than any capture.
    #[error("its body claims {0} bytes; none has more than {MAX_BODY_BYTES}")]
    TooLong(u64),
    /// Cut off, or something follows.
    #[error("its body has {actual} bytes instead of {expected}; it was cut off or added to")]
    Length {
        /// As it is.
        actual: usize,
        /// As written.
        expected: u64,
    },
    /// The body is damaged.
    #[error("the body's checksum is {actual:#010x} and should be {expected:#010x}; it is damaged")]
    Body {
        /// Of the bytes that are there.
        actual: u32,
        /// As written.
        expected: u32,
    },
    /// The body is whole, and not what it should be.
    #[error("its body is no capture: {0}")]
    Json(#[from] serde_json::Error),
}

/// The bytes of `capture`.
pub fn encode(capture: &Capture) -> Result<Vec<u8>, FormatError> {
    let mut bytes = vec![0; HEADER_BYTES];
    serde_json::to_writer(&mut bytes, capture)?;
    let (header, body) = bytes.split_at_mut(HEADER_BYTES);
    if body.len() > MAX_BODY_BYTES {
        return Err(FormatError::TooLong(body.len() as u64));
    }
    header[..8].copy_from_slice(&MAGIC);
    header[8..10].copy_from_slice(&VERSION.to_le_bytes());
    header[10..12].copy_from_slice(&32_u16.to_le_bytes());
    header[12..16].copy_from_slice(&JSON.to_le_bytes());
    header[16..24].copy_from_slice(&(body.len() as u64).to_le_bytes());
    header[24..28].copy_from_slice(&crc32fast::hash(body).to_le_bytes());
    let sum = crc32fast::hash(&header[..28]);
    header[28..32].copy_from_slice(&sum.to_le_bytes());
    Ok(bytes)
}

/// The capture in `bytes`, which may be any.
pub fn decode(bytes: &[u8]) -> Result<Capture, FormatError> {
    let Some((header, body)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
        return Err(FormatError::Short(bytes.len()));
    };
    if header[..8] != MAGIC {
        return Err(FormatError::Magic);
    }
    let (actual, expected) = (crc32fast::hash(&header[..28]), word(header, 28));
    if actual != expected {
        return Err(FormatError::Header { actual, expected });
    }
    let version = u16::from_le_bytes([header[8], header[9]]);
    if version != VERSION {
        return Err(FormatError::Version(version));
    }
    if word(header, 12) != JSON {
        return Err(FormatError::Encoding(word(header, 12)));
    }
    let expected = u64::from(word(header, 16)) | u64::from(word(header, 20)) << 32;
    if expected > MAX_BODY_BYTES as u64 {
        return Err(FormatError::TooLong(expected));
    }
    if body.len() as u64 != expected {
        let actual = body.len();
        return Err(FormatError::Length { actual, expected });
    }
    let (actual, expected) = (crc32fast::hash(body), word(header, 24));
    if actual != expected {
        return Err(FormatError::Body { actual, expected });
    }
    Ok(serde_json::from_slice(body)?)
}

/// The four bytes at `at`.
fn word(header: &[u8; HEADER_BYTES], at: usize) -> u32 {
    u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
}
