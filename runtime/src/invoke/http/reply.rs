//! A reply, and its bytes.

use std::io::Write;

/// What a client waits for that wants to know whether its body is welcome.
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// One reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Its status.
    pub status: u16,
    /// Its headers beside those that say its length and form. Control characters do not go out.
    pub headers: Vec<(&'static str, String)>,
    /// Its body, JSON.
    pub body: Vec<u8>,
}

impl Reply {
    /// A status with a body of JSON.
    #[must_use]
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: body.into(),
        }
    }

    /// An error as the Runtime API tells one.
    #[must_use]
    pub fn error(status: u16, kind: &str, message: &str) -> Self {
        let body = serde_json::json!({"errorType": kind, "errorMessage": message});
        Self::new(status, body.to_string())
    }

    /// Appends its bytes to `out`.
    pub fn encode(&self, keep_alive: bool, out: &mut Vec<u8>) {
        let reason = reason(self.status);
        // Writing to memory does not fail.
        let _ = write!(out, "HTTP/1.1 {} {reason}\r\n", self.status);
        for (name, value) in &self.headers {
            let plain: String = value.chars().filter(|char| !char.is_control()).collect();
            let _ = write!(out, "{name}: {plain}\r\n");
        }
        let connection = if keep_alive { "keep-alive" } else { "close" };
        let _ = write!(
            out,
            "Content-Type: application/json\r\nContent-Length: {}\r\nConnection: {connection}\r\n\r\n",
            self.body.len(),
        );
        out.extend_from_slice(&self.body);
    }
}

const fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        202 => "Accepted",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        410 => "Gone",
        413 => "Payload Too Large",
        431 => "Request Header Fields Too Large",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        _ => "Internal Server Error",
    }
}
