//! HTTP/1.1 as far as the Runtime API needs it: requests of bytes, and replies to bytes.
//!
//! The function at the other end is not trusted: heads, bodies and the number of headers are
//! capped, and what could be read in two ways is refused.

mod body;
mod reply;

use body::{Body, Framing};
pub use reply::{CONTINUE, Reply};

/// Bytes that the head of a request may have: the error type and a cause of some length.
pub const MAX_HEAD: usize = 64 * 1024;
/// Headers that a request may have.
const MAX_HEADERS: usize = 64;
/// Bytes of a body beyond the limit that are read and thrown away, so that a client that reads no
/// answer before it has written everything still gets the one that says why.
const MAX_DISCARDED: usize = 64 * 1024 * 1024;

/// Why bytes are no request. Its connection is of no use any more.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HttpError {
    /// Not HTTP, or cut.
    #[error("this is no HTTP/1.1 request: {0}")]
    Malformed(&'static str),
    /// The head is too large.
    #[error("the head of the request has more than {MAX_HEAD} bytes")]
    HeadTooLarge,
    /// The body is encoded in a way that is not known here.
    #[error("transfer encoding `{0}`: only `chunked` is known")]
    Encoding(String),
    /// The body is far too large even to be thrown away.
    #[error("the body has more than {MAX_DISCARDED} bytes")]
    BodyTooLarge,
}

impl HttpError {
    /// The status that tells it.
    #[must_use]
    pub const fn status(&self) -> u16 {
        match self {
            Self::Malformed(_) => 400,
            Self::HeadTooLarge => 431,
            Self::Encoding(_) => 501,
            Self::BodyTooLarge => 413,
        }
    }
}

/// A request, whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// As sent: `GET`.
    pub method: String,
    /// As sent: a path, perhaps with a query.
    pub target: String,
    /// In order; names in lowercase. Those that came after a chunked body are at the end.
    pub headers: Vec<(String, String)>,
    /// What it carries; none where that is larger than the limit, and was thrown away.
    pub body: Option<Vec<u8>>,
    /// The client means to send more requests.
    pub keep_alive: bool,
}

impl Request {
    /// The last header of this name (lowercase): one after the body says it better.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut found = self.headers.iter().rev();
        found
            .find(|(header, _)| header == name)
            .map(|(_, value)| &**value)
    }
}

/// Makes requests of bytes as they come.
#[derive(Debug)]
pub struct Parser {
    bytes: Vec<u8>,
    at: usize,
    limit: usize,
    current: Option<(Request, Body)>,
    wants_continue: bool,
}

impl Parser {
    /// For bodies of at most `limit` bytes.
    #[must_use]
    pub const fn new(limit: usize) -> Self {
        Self {
            bytes: Vec::new(),
            at: 0,
            limit,
            current: None,
            wants_continue: false,
        }
    }

    /// Appends what was read.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.bytes.drain(..self.at);
        self.at = 0;
        self.bytes.extend_from_slice(bytes);
    }

    /// Bytes that are kept until there is a request.
    #[must_use]
    pub fn held(&self) -> usize {
        let body = self.current.as_ref().map_or(0, |(_, body)| body.held());
        self.bytes.len() + body
    }

    /// The client waits for `100 Continue` before it sends its body; told once.
    pub fn wants_continue(&mut self) -> bool {
        std::mem::take(&mut self.wants_continue)
    }

    /// The next request, if all of it is here.
    pub fn take(&mut self) -> Result<Option<Request>, HttpError> {
        if self.current.is_none() {
            let Some((request, framing, length)) = head(self.rest())? else {
                return Ok(None);
            };
            self.at += length;
            let expects = request.header("expect").is_some_and(is("100-continue"));
            self.wants_continue = expects && framing != Framing::Length(0);
            self.current = Some((request, Body::new(framing, self.limit)));
        }
        let Some((mut request, mut body)) = self.current.take() else {
            return Ok(None);
        };
        let (used, whole) = body.read(self.rest())?;
        self.at += used;
        if !whole {
            self.current = Some((request, body));
            return Ok(None);
        }
        self.wants_continue = false;
        let (content, trailers) = body.end();
        request.body = content;
        request.headers.extend(trailers);
        if self.at == self.bytes.len() {
            // A large request must not be kept for the small ones after it.
            self.bytes = Vec::new();
            self.at = 0;
        }
        Ok(Some(request))
    }

    fn rest(&self) -> &[u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }
}

/// A request's head, how its body is framed, and the bytes that it took.
fn head(bytes: &[u8]) -> Result<Option<(Request, Framing, usize)>, HttpError> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut parsed = httparse::Request::new(&mut headers);
    let length = match parsed.parse(bytes) {
        Ok(httparse::Status::Complete(length)) if length <= MAX_HEAD => length,
        Ok(httparse::Status::Partial) if bytes.len() <= MAX_HEAD => return Ok(None),
        Ok(_) | Err(httparse::Error::TooManyHeaders) => return Err(HttpError::HeadTooLarge),
        Err(_) => return Err(HttpError::Malformed("its head cannot be read")),
    };
    let (Some(method), Some(target), Some(version)) = (parsed.method, parsed.path, parsed.version)
    else {
        return Err(HttpError::Malformed("it has no request line"));
    };
    let headers = parsed
        .headers
        .iter()
        .map(|header| field(header))
        .collect::<Result<Vec<_>, _>>()?;
    let framing = Framing::of(&headers)?;
    let mut request = Request {
        method: method.to_owned(),
        target: target.to_owned(),
        headers,
        body: None,
        keep_alive: version == 1,
    };
    if let Some(connection) = request.header("connection") {
        let says = |what| connection.split(',').map(str::trim).any(is(what));
        request.keep_alive = !says("close") && (version == 1 || says("keep-alive"));
    }
    Ok(Some((request, framing, length)))
}

/// A header, its name in lowercase.
fn field(header: &httparse::Header<'_>) -> Result<(String, String), HttpError> {
    let value = std::str::from_utf8(header.value)
        .map_err(|_| HttpError::Malformed("a header is not UTF-8"))?;
    Ok((header.name.to_ascii_lowercase(), value.trim().to_owned()))
}

fn is(what: &'static str) -> impl Fn(&str) -> bool {
    move |value| value.eq_ignore_ascii_case(what)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests;
