//! The API of functions, as a program of any language speaks it.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// Where it is.
#[derive(Clone, Debug)]
pub struct Api(PathBuf);

/// What it answered.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The status of HTTP.
    pub status: u16,
    /// Headers, their names in lower case.
    pub headers: BTreeMap<String, String>,
    /// The body.
    pub body: Vec<u8>,
}

impl Reply {
    /// One header.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// The body, which is JSON.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_slice(&self.body).with_context(|| format!("no JSON: {self}"))
    }

    /// Fails, with what was told, unless the status is one of success.
    pub fn success(self) -> Result<Self> {
        ensure!((200..300).contains(&self.status), "{self}");
        Ok(self)
    }
}

impl std::fmt::Display for Reply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let body = String::from_utf8_lossy(&self.body);
        write!(f, "{} {:?} {body}", self.status, self.headers)
    }
}

impl Api {
    /// The one at a socket.
    #[must_use]
    pub const fn at(socket: PathBuf) -> Self {
        Self(socket)
    }

    /// Asks, and waits at most `patience` for the whole answer. Who has no answer then hangs up.
    pub fn ask(
        &self,
        line: &str,
        headers: &[(&str, &str)],
        body: &[u8],
        patience: Duration,
    ) -> Result<Reply> {
        let deadline = Instant::now() + patience;
        let mut socket = UnixStream::connect(&self.0)
            .with_context(|| format!("connect to {}", self.0.display()))?;
        let mut head = format!("{line} HTTP/1.1\r\nhost: hearth\r\nconnection: close\r\n");
        for (name, value) in headers {
            head.push_str(name);
            head.push_str(": ");
            head.push_str(value);
            head.push_str("\r\n");
        }
        let length = body.len();
        write!(socket, "{head}content-length: {length}\r\n\r\n")?;
        socket.write_all(body)?;
        let mut told = Vec::new();
        let mut piece = [0; 16 << 10];
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            ensure!(!left.is_zero(), "no answer to {line} in {patience:?}");
            socket.set_read_timeout(Some(left))?;
            match socket.read(&mut piece) {
                Ok(0) => break,
                Ok(length) => told.extend_from_slice(&piece[..length]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error).context("read the answer"),
            }
        }
        parse(&told).with_context(|| format!("{line}: {}", String::from_utf8_lossy(&told)))
    }

    /// What is at a path, as JSON.
    pub fn get(&self, path: &str) -> Result<Value> {
        let line = format!("GET {path}");
        self.ask(&line, &[], b"", PATIENCE)?.success()?.json()
    }

    /// Deploys a function; its version.
    pub fn deploy(&self, name: &str, definition: &Value) -> Result<u64> {
        let body = definition.to_string();
        let json = [("content-type", "application/json")];
        let line = format!("PUT /v1/functions/{name}");
        let told = self.ask(&line, &json, body.as_bytes(), PATIENCE)?;
        let told = told.success()?.json()?;
        told["version"].as_u64().context("no version")
    }

    /// Removes a function.
    pub fn remove(&self, name: &str) -> Result<()> {
        let line = format!("DELETE /v1/functions/{name}");
        self.ask(&line, &[], b"", PATIENCE)?.success().map(drop)
    }

    /// Has a function do something.
    pub fn invoke(&self, name: &str, payload: &Value, patience: Duration) -> Result<Reply> {
        let line = format!("POST /v1/functions/{name}/invocations");
        let body = payload.to_string();
        let limit = format!("{}ms", patience.as_millis());
        let headers = [("hearth-timeout", limit.as_str())];
        // It answers by then, if only that it is too late.
        let grace = Duration::from_secs(10);
        self.ask(&line, &headers, body.as_bytes(), patience + grace)
    }
}

/// How long anything else may take.
const PATIENCE: Duration = Duration::from_mins(1);

/// A whole answer: the connection was closed after it, and it says how long it is.
fn parse(told: &[u8]) -> Result<Reply> {
    const END: &[u8] = b"\r\n\r\n";
    let head = told.windows(END.len()).position(|bytes| bytes == END);
    let head = head.context("the connection was closed before an answer")?;
    let (head, body) = (
        std::str::from_utf8(&told[..head])?,
        &told[head + END.len()..],
    );
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1));
    let status = status.and_then(|status| status.parse().ok());
    let headers: BTreeMap<_, _> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    if let Some(length) = headers.get("content-length") {
        ensure!(length.parse() == Ok(body.len()), "the answer is cut short");
    }
    Ok(Reply {
        status: status.context("no status")?,
        headers,
        body: body.to_vec(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_an_answer_is_none() {
        let whole = b"HTTP/1.1 200 OK\r\nHearth-Sandbox: a\r\ncontent-length: 2\r\n\r\n{}";
        let reply = parse(whole).expect("an answer");
        assert_eq!(
            (reply.status, reply.header("hearth-sandbox")),
            (200, Some("a"))
        );
        for length in 0..whole.len() {
            assert!(parse(&whole[..length]).is_err(), "{length}");
        }
    }
}
