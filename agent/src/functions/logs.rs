//! What the sandboxes of one function wrote lately, for whoever asks.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use hearth_runtime::id::SandboxId;
use hearth_runtime::sandbox::message::Stream;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use utoipa::ToSchema;

/// Bytes that are kept of one function; the oldest go first.
const MAX_BYTES: usize = 1 << 20;
/// What a piece takes beside its text.
const PIECE: usize = 64;
/// Pieces that are given out at once.
const BATCH: usize = 256;

/// A piece of what a function wrote: mostly a line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Piece {
    /// Counts what the function wrote since the agent began, from 1.
    pub number: u64,
    /// When the agent got it, in milliseconds since 1970.
    pub unix_ms: u64,
    /// Which sandbox wrote it.
    #[schema(value_type = String, example = "8476a536e9f441e8")]
    pub sandbox: SandboxId,
    /// Where to.
    pub stream: Output,
    /// What; what is not UTF-8 in it is replaced.
    pub text: String,
    /// Bytes before it that were written faster than they could be taken, and are lost.
    pub lost_bytes: u64,
}

/// An output of a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Output {
    /// Its standard output.
    Stdout,
    /// Its standard error.
    Stderr,
    /// No output of it: what hearth has to say.
    Hearth,
}

impl From<Stream> for Output {
    fn from(stream: Stream) -> Self {
        match stream {
            Stream::Out => Self::Stdout,
            Stream::Err => Self::Stderr,
        }
    }
}

/// The last of what one function wrote.
#[derive(Debug)]
pub struct Logs {
    kept: Mutex<Kept>,
    /// The number of the last piece.
    last: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Kept {
    pieces: VecDeque<Piece>,
    bytes: usize,
    /// How many went to make room.
    evicted: u64,
}

impl Default for Logs {
    fn default() -> Self {
        Self {
            kept: Mutex::default(),
            last: watch::Sender::new(0),
        }
    }
}

impl Logs {
    /// Keeps what a sandbox wrote.
    pub fn push(&self, sandbox: SandboxId, stream: Output, bytes: &[u8], lost_bytes: u64) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let number = *self.last.borrow() + 1;
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let text = String::from_utf8_lossy(bytes).into_owned();
        kept.bytes += text.len() + PIECE;
        kept.pieces.push_back(Piece {
            number,
            unix_ms: u64::try_from(now.unwrap_or_default().as_millis()).unwrap_or(u64::MAX),
            sandbox,
            stream,
            text,
            lost_bytes,
        });
        while kept.bytes > MAX_BYTES
            && let Some(gone) = kept.pieces.pop_front()
        {
            kept.bytes -= gone.text.len() + PIECE;
            kept.evicted += 1;
        }
        self.last.send_replace(number);
    }

    /// What came after the piece `number`, some at a time; all that is kept after 0.
    pub fn after(&self, number: u64) -> Vec<Piece> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let later = kept.pieces.iter().filter(|piece| piece.number > number);
        later.take(BATCH).cloned().collect()
    }

    /// Tells the number of the last piece, whenever it changes.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.last.subscribe()
    }

    /// Pieces that went to make room.
    pub fn evicted(&self) -> u64 {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.evicted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sandbox() -> SandboxId {
        "8476a536e9f441e8".parse().expect("an id")
    }

    #[test]
    fn what_is_kept_is_bounded_and_what_went_is_counted() {
        let logs = Logs::default();
        let line = vec![b'x'; 64 * 1024];
        for _ in 0..20 {
            logs.push(sandbox(), Output::Stdout, &line, 0);
        }
        let mut numbers = Vec::new();
        let mut last = 0;
        loop {
            let pieces = logs.after(last);
            let Some(piece) = pieces.last() else { break };
            last = piece.number;
            numbers.extend(pieces.iter().map(|piece| piece.number));
        }
        assert_eq!(numbers, (6..=20).collect::<Vec<_>>());
        assert_eq!(logs.evicted(), 5);
        assert_eq!(*logs.watch().borrow(), 20);
    }

    #[test]
    fn what_is_no_text_does_no_harm() {
        let logs = Logs::default();
        logs.push(sandbox(), Stream::Err.into(), b"a\xff\n", 7);
        let piece = logs.after(0).remove(0);
        assert_eq!(piece.text, "a\u{fffd}\n");
        assert_eq!((piece.stream, piece.lost_bytes), (Output::Stderr, 7));
    }
}
