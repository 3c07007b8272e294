//! The body of a request, as it comes: of a length that was announced, or in chunks.

use super::{HttpError, MAX_DISCARDED, MAX_HEAD, MAX_HEADERS, field, is};

/// How the end of a body is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// So many bytes.
    Length(usize),
    /// Each chunk says its size; one of none is the last, and headers may follow.
    Chunked,
}

impl Framing {
    /// As the headers say. What says it twice could be read in two ways, and is refused.
    pub(super) fn of(headers: &[(String, String)]) -> Result<Self, HttpError> {
        let all = |name: &'static str| {
            let found = headers.iter().filter(move |(header, _)| header == name);
            found.map(|(_, value)| &**value)
        };
        let mut encodings = all("transfer-encoding");
        let mut lengths = all("content-length");
        match (encodings.next(), lengths.next()) {
            (None, None) => Ok(Self::Length(0)),
            (Some(encoding), None) if encodings.next().is_none() => {
                if is("chunked")(encoding) {
                    Ok(Self::Chunked)
                } else {
                    Err(HttpError::Encoding(encoding.chars().take(64).collect()))
                }
            }
            (None, Some(length)) if lengths.next().is_none() => {
                let digits = length.bytes().all(|byte| byte.is_ascii_digit());
                let length = length.parse().ok().filter(|_| digits);
                length
                    .map(Self::Length)
                    .ok_or(HttpError::Malformed("its content-length is no number"))
            }
            _ => Err(HttpError::Malformed("it says its length more than once")),
        }
    }
}

/// Where in the body the next byte belongs.
#[derive(Clone, Copy, Debug)]
enum At {
    Bytes { left: usize, chunked: bool },
    ChunkSize,
    ChunkEnd,
    Trailers,
    Done,
}

/// A body of which more may come.
#[derive(Debug)]
pub(super) struct Body {
    at: At,
    bytes: Vec<u8>,
    limit: usize,
    /// All that came, kept or not.
    seen: usize,
    trailers: Vec<(String, String)>,
}

impl Body {
    pub(super) fn new(framing: Framing, limit: usize) -> Self {
        Self {
            at: match framing {
                Framing::Length(left) => At::Bytes {
                    left,
                    chunked: false,
                },
                Framing::Chunked => At::ChunkSize,
            },
            bytes: Vec::new(),
            limit,
            seen: 0,
            trailers: Vec::new(),
        }
    }

    pub(super) fn held(&self) -> usize {
        self.bytes.len()
    }

    /// Reads on; how many bytes were used, and whether the body is whole.
    pub(super) fn read(&mut self, bytes: &[u8]) -> Result<(usize, bool), HttpError> {
        let mut used = 0;
        loop {
            let rest = bytes.get(used..).unwrap_or_default();
            let (now, next) = match self.at {
                At::Done => return Ok((used, true)),
                At::Bytes { left, chunked } => self.content(rest, left, chunked)?,
                At::ChunkSize => chunk_size(rest)?,
                At::ChunkEnd => chunk_end(rest)?,
                At::Trailers => self.trailers(rest)?,
            };
            used += now;
            match next {
                Some(next) => self.at = next,
                None => return Ok((used, false)),
            }
        }
    }

    /// The content, none where it was too large, and what headers followed it.
    pub(super) fn end(self) -> (Option<Vec<u8>>, Vec<(String, String)>) {
        let content = (self.seen <= self.limit).then_some(self.bytes);
        (content, self.trailers)
    }

    fn content(
        &mut self,
        rest: &[u8],
        left: usize,
        chunked: bool,
    ) -> Result<(usize, Option<At>), HttpError> {
        if self.seen.saturating_add(left) > MAX_DISCARDED {
            return Err(HttpError::BodyTooLarge);
        }
        let now = left.min(rest.len());
        self.seen += now;
        if self.seen > self.limit {
            self.bytes = Vec::new();
        } else {
            self.bytes.extend(rest.iter().take(now));
        }
        let left = left - now;
        self.at = At::Bytes { left, chunked };
        let next = match (left, chunked) {
            (0, false) => Some(At::Done),
            (0, true) => Some(At::ChunkEnd),
            _ => None,
        };
        Ok((now, next))
    }

    fn trailers(&mut self, rest: &[u8]) -> Result<(usize, Option<At>), HttpError> {
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        match httparse::parse_headers(rest, &mut headers) {
            Ok(httparse::Status::Complete((used, headers))) if used <= MAX_HEAD => {
                let fields = headers.iter().map(field);
                self.trailers = fields.collect::<Result<_, _>>()?;
                Ok((used, Some(At::Done)))
            }
            Ok(httparse::Status::Partial) if rest.len() <= MAX_HEAD => Ok((0, None)),
            Ok(_) | Err(httparse::Error::TooManyHeaders) => Err(HttpError::HeadTooLarge),
            Err(_) => Err(HttpError::Malformed(
                "the headers after its body cannot be read",
            )),
        }
    }
}

fn chunk_size(rest: &[u8]) -> Result<(usize, Option<At>), HttpError> {
    // Sixteen digits, and extensions that nobody uses: a line of any length is not waited for.
    const LONGEST: usize = 256;
    match httparse::parse_chunk_size(rest) {
        Ok(httparse::Status::Complete((used, 0))) => Ok((used, Some(At::Trailers))),
        Ok(httparse::Status::Complete((used, size))) => {
            let left = usize::try_from(size).map_err(|_| HttpError::BodyTooLarge)?;
            let chunked = true;
            Ok((used, Some(At::Bytes { left, chunked })))
        }
        Ok(httparse::Status::Partial) if rest.len() <= LONGEST => Ok((0, None)),
        _ => Err(HttpError::Malformed("the size of a chunk cannot be read")),
    }
}

fn chunk_end(rest: &[u8]) -> Result<(usize, Option<At>), HttpError> {
    match rest {
        [b'\r', b'\n', ..] => Ok((2, Some(At::ChunkSize))),
        [] | [b'\r'] => Ok((0, None)),
        _ => Err(HttpError::Malformed("a chunk is longer than it says")),
    }
}
