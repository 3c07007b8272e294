//! One frame, its bytes, and what can be wrong with them.

use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::id::{Epoch, RequestId};

/// Bytes of a header.
pub const HEADER: usize = 40;
/// Bytes that a head may have.
pub const MAX_HEAD: usize = 64 * 1024;
/// Bytes that a body may have: the largest payload of a function, 6 MB as AWS Lambda has it (they
/// count in powers of two).
pub const MAX_BODY: usize = 6 * 1024 * 1024;

/// Begins every frame; its last byte is the version of what follows.
const MAGIC: [u8; 4] = *b"hch\x01";
/// How much a decoder reads at a time.
const CHUNK: usize = 64 * 1024;

/// One message with what it carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame<M> {
    /// Which life of the sandbox it is of; who receives one of another life drops it.
    pub epoch: Epoch,
    /// The invocation that it belongs to, if it belongs to one.
    pub request: Option<RequestId>,
    /// Time left for it when it was sent. A length and no time of a clock, because the clock in a
    /// guest is another one. At most some 584 years.
    pub left: Option<Duration>,
    /// What it says.
    pub message: M,
    /// Opaque bytes.
    pub body: Vec<u8>,
}

/// Why bytes are no frame. Nothing that comes after them can be read.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// It does not begin as frames do.
    #[error(
        "a frame begins with {found:02x?}, not {MAGIC:02x?}: the other end speaks another version of the channel, or something else"
    )]
    Magic {
        /// What it begins with.
        found: [u8; 4],
    },
    /// A part is larger than it may be.
    #[error("the {part} of a frame has {bytes} bytes; at most {most} are allowed")]
    TooLarge {
        /// `head` or `body`.
        part: &'static str,
        /// Its size.
        bytes: usize,
        /// What is allowed.
        most: usize,
    },
    /// The head is no message that this end knows.
    #[error("the head of a frame is no message: {0}")]
    Head(#[from] serde_json::Error),
    /// The stream ended within a frame.
    #[error("the stream ended {missing} bytes before the end of a frame")]
    Torn {
        /// Bytes that the header announced and nobody sent.
        missing: usize,
    },
}

fn check(part: &'static str, bytes: usize, most: usize) -> Result<usize, FrameError> {
    if bytes > most {
        return Err(FrameError::TooLarge { part, bytes, most });
    }
    Ok(bytes)
}

impl<M> Frame<M> {
    /// A frame of `epoch` that belongs to no request and carries nothing.
    #[must_use]
    pub const fn new(epoch: Epoch, message: M) -> Self {
        Self {
            epoch,
            request: None,
            left: None,
            message,
            body: Vec::new(),
        }
    }
}

impl<M: Serialize> Frame<M> {
    /// Appends its bytes to `out`; nothing where it is refused.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), FrameError> {
        let head = serde_json::to_vec(&self.message)?;
        check("head", head.len(), MAX_HEAD)?;
        check("body", self.body.len(), MAX_BODY)?;
        let nanos = |left: Duration| u64::try_from(left.as_nanos()).unwrap_or(u64::MAX).max(1);
        out.reserve(HEADER + head.len() + self.body.len());
        out.extend_from_slice(&MAGIC);
        for size in [head.len(), self.body.len()] {
            // Both are capped far below.
            out.extend_from_slice(&u32::try_from(size).unwrap_or(u32::MAX).to_le_bytes());
        }
        out.extend_from_slice(&self.epoch.0.to_le_bytes());
        out.extend_from_slice(&self.request.unwrap_or_default().as_u128().to_le_bytes());
        out.extend_from_slice(&self.left.map_or(0, nanos).to_le_bytes());
        out.extend_from_slice(&head);
        out.extend_from_slice(&self.body);
        Ok(())
    }
}

/// What a header says.
struct Header {
    head: usize,
    body: usize,
    epoch: Epoch,
    request: Option<RequestId>,
    left: Option<Duration>,
}

impl Header {
    fn parse(bytes: &[u8; HEADER]) -> Result<Self, FrameError> {
        let (magic, rest) = split(bytes);
        if magic != MAGIC {
            return Err(FrameError::Magic { found: magic });
        }
        let (head, rest) = split(rest);
        let (body, rest) = split(rest);
        let (epoch, rest) = split(rest);
        let (request, rest) = split(rest);
        let (left, _) = split(rest);
        let size = |bytes| usize::try_from(u32::from_le_bytes(bytes)).unwrap_or(usize::MAX);
        let request = u128::from_le_bytes(request);
        let left = u64::from_le_bytes(left);
        Ok(Self {
            head: check("head", size(head), MAX_HEAD)?,
            body: check("body", size(body), MAX_BODY)?,
            epoch: Epoch(u32::from_le_bytes(epoch)),
            request: (request != 0).then_some(RequestId::from_u128(request)),
            left: (left != 0).then_some(Duration::from_nanos(left)),
        })
    }
}

/// The first `N` bytes, zeros where there are fewer, and the rest.
fn split<const N: usize>(bytes: &[u8]) -> ([u8; N], &[u8]) {
    let (field, rest) = bytes.split_first_chunk().unwrap_or((&[0; N], &[]));
    (*field, rest)
}

/// Makes frames of bytes as they come.
#[derive(Debug, Default)]
pub struct Decoder {
    bytes: Vec<u8>,
    /// Where the next frame begins.
    at: usize,
}

impl Decoder {
    /// Where to put what was read; [`filled`](Self::filled) says how much it was.
    pub fn spare(&mut self) -> &mut Vec<u8> {
        // What was given out goes when there is nothing after it, or much before it.
        if self.at == self.bytes.len() || self.at > CHUNK {
            self.bytes.drain(..self.at);
            self.at = 0;
            self.bytes.shrink_to(4 * CHUNK);
        }
        self.bytes.reserve(CHUNK);
        &mut self.bytes
    }

    /// Appends what was read.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.spare().extend_from_slice(bytes);
    }

    /// The next frame, if all of it is here. After an error there is none any more.
    pub fn take<M: DeserializeOwned>(&mut self) -> Result<Option<Frame<M>>, FrameError> {
        let bytes = self.bytes.get(self.at..).unwrap_or_default();
        let Some((header, rest)) = bytes.split_first_chunk() else {
            return Ok(None);
        };
        let header = Header::parse(header)?;
        let Some(frame) = rest.get(..header.head + header.body) else {
            return Ok(None);
        };
        let (head, body) = frame.split_at(header.head);
        let frame = Frame {
            epoch: header.epoch,
            request: header.request,
            left: header.left,
            message: serde_json::from_slice(head)?,
            body: body.to_vec(),
        };
        self.at += HEADER + header.head + header.body;
        Ok(Some(frame))
    }

    /// The stream has ended: an error where that was within a frame.
    pub fn end(&self) -> Result<(), FrameError> {
        let bytes = self.bytes.get(self.at..).unwrap_or_default();
        let whole = match bytes.split_first_chunk() {
            None if bytes.is_empty() => return Ok(()),
            None => HEADER,
            Some((header, _)) => {
                let header = Header::parse(header)?;
                HEADER + header.head + header.body
            }
        };
        match whole.saturating_sub(bytes.len()) {
            0 => Ok(()),
            missing => Err(FrameError::Torn { missing }),
        }
    }

    /// Bytes that are held.
    #[must_use]
    pub const fn held(&self) -> usize {
        self.bytes.capacity()
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use serde::Deserialize;

    use super::*;

    #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Message {
        Invoke { trace: Option<String> },
        Cancel,
    }

    fn frames() -> impl Strategy<Value = Frame<Message>> {
        let message = prop_oneof![
            Just(Message::Cancel),
            any::<Option<String>>().prop_map(|trace| Message::Invoke { trace }),
        ];
        let header = (any::<u32>(), any::<Option<u128>>(), any::<Option<u64>>());
        (header, message, vec(any::<u8>(), 0..5000)).prop_map(
            |((epoch, request, left), message, body)| Frame {
                epoch: Epoch(epoch),
                request: request.filter(|id| *id != 0).map(RequestId::from_u128),
                left: left.filter(|left| *left != 0).map(Duration::from_nanos),
                message,
                body,
            },
        )
    }

    proptest! {
        #[test]
        fn frames_come_out_as_they_went_in(
            frames in vec(frames(), 0..8),
            cuts in vec(1_usize..700, 1..40),
        ) {
            let mut bytes = Vec::new();
            for frame in &frames {
                frame.encode(&mut bytes).unwrap();
            }
            let mut decoder = Decoder::default();
            let mut out = Vec::new();
            let mut cuts = cuts.iter().cycle();
            let mut rest = &*bytes;
            while !rest.is_empty() {
                let (now, later) = rest.split_at(rest.len().min(*cuts.next().unwrap()));
                decoder.feed(now);
                rest = later;
                while let Some(frame) = decoder.take::<Message>().unwrap() {
                    out.push(frame);
                }
            }
            prop_assert_eq!(out, frames);
            prop_assert!(decoder.end().is_ok());
        }

        #[test]
        fn any_bytes_are_frames_or_an_error_and_never_much_memory(bytes in vec(any::<u8>(), 0..4000), real: bool) {
            let mut decoder = Decoder::default();
            if real {
                decoder.feed(&MAGIC);
            }
            decoder.feed(&bytes);
            while let Ok(Some(_)) = decoder.take::<Message>() {}
            let _ = decoder.end();
            prop_assert!(decoder.held() <= 8 * CHUNK);
        }
    }

    fn bytes_of(frame: &Frame<Message>) -> Vec<u8> {
        let mut bytes = Vec::new();
        frame.encode(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn sizes_are_refused_before_anything_is_reserved() {
        let mut bytes = bytes_of(&Frame::new(Epoch(1), Message::Cancel));
        bytes[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
        let mut decoder = Decoder::default();
        decoder.feed(&bytes);
        let told = decoder.take::<Message>().unwrap_err().to_string();
        assert_eq!(
            told,
            "the body of a frame has 4294967295 bytes; at most 6291456 are allowed"
        );
        let mut large = Frame::new(Epoch(1), Message::Cancel);
        large.body = vec![0; MAX_BODY + 1];
        let mut out = Vec::new();
        assert!(large.encode(&mut out).is_err());
        assert!(out.is_empty());
        large.body.truncate(MAX_BODY);
        assert!(large.encode(&mut out).is_ok());
    }

    #[test]
    fn a_torn_stream_and_another_version_are_told() {
        let mut bytes = bytes_of(&Frame::new(Epoch(1), Message::Cancel));
        let mut decoder = Decoder::default();
        decoder.feed(&bytes[..bytes.len() - 3]);
        assert!(matches!(decoder.take::<Message>(), Ok(None)));
        assert!(matches!(
            decoder.end(),
            Err(FrameError::Torn { missing: 3 })
        ));
        bytes[3] = 2;
        let mut decoder = Decoder::default();
        decoder.feed(&bytes);
        assert!(matches!(
            decoder.take::<Message>(),
            Err(FrameError::Magic { .. })
        ));
    }

    #[test]
    fn what_was_given_out_is_let_go_of() {
        let mut frame = Frame::new(Epoch(1), Message::Cancel);
        frame.body = vec![7; MAX_BODY];
        let mut decoder = Decoder::default();
        decoder.feed(&bytes_of(&frame));
        assert_eq!(decoder.take::<Message>().unwrap(), Some(frame));
        decoder.spare();
        assert!(decoder.held() <= 5 * CHUNK, "{}", decoder.held());
    }
}
