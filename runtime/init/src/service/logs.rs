//! What the function wrote and nobody has taken yet: bounded, the oldest goes first, and what went
//! is counted.

use std::collections::VecDeque;

use hearth_runtime::id::RequestId;
use hearth_runtime::sandbox::message::Stream;

/// Bytes that are kept, those that keeping them takes included.
const KEPT: usize = 256 * 1024;
/// What keeping one piece takes beside its bytes, about.
const COST: usize = 128;

/// A piece of what was written, told as one message.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Log {
    pub(super) stream: Stream,
    /// The request that the function was at work on.
    pub(super) request: Option<RequestId>,
    pub(super) bytes: Vec<u8>,
    /// Bytes before it that are gone.
    pub(super) dropped: u64,
}

/// In the order in which they were read.
#[derive(Debug, Default)]
pub(super) struct Logs {
    kept: VecDeque<Log>,
    held: usize,
    dropped: u64,
}

impl Logs {
    pub(super) fn push(&mut self, stream: Stream, request: Option<RequestId>, bytes: Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        self.held += bytes.len() + COST;
        self.kept.push_back(Log {
            stream,
            request,
            bytes,
            dropped: 0,
        });
        while self.held > KEPT
            && let Some(log) = self.kept.pop_front()
        {
            self.held -= log.bytes.len() + COST;
            self.lose(log.bytes.len());
        }
    }

    /// The oldest; it tells what went before it.
    pub(super) fn take(&mut self) -> Option<Log> {
        let mut log = self.kept.pop_front()?;
        self.held -= log.bytes.len() + COST;
        log.dropped = std::mem::take(&mut self.dropped);
        Some(log)
    }

    /// So many bytes did not arrive.
    pub(super) fn lose(&mut self, bytes: usize) {
        self.dropped += u64::try_from(bytes).unwrap_or(u64::MAX);
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn however_it_is_written_no_more_is_kept_than_may_be_and_each_byte_is_accounted_for() {
        for size in [1, 100, 60_000] {
            let mut logs = Logs::default();
            let mut written = 0;
            for _ in 0..1_000_000 / size + 10 {
                logs.push(Stream::Out, None, vec![b'x'; size]);
                written += u64::try_from(size).unwrap();
                assert!(logs.held <= KEPT);
            }
            let (mut told, mut dropped) = (0, 0);
            while let Some(log) = logs.take() {
                told += u64::try_from(log.bytes.len()).unwrap();
                dropped += log.dropped;
            }
            assert!(dropped > 0 && told > 0);
            assert_eq!(told + dropped, written);
            assert_eq!(logs.held, 0);
        }
    }

    #[test]
    fn what_is_lost_is_told_by_the_next_one_only() {
        let mut logs = Logs::default();
        logs.lose(7);
        logs.push(Stream::Err, None, b"a".to_vec());
        logs.push(Stream::Err, None, b"b".to_vec());
        assert_eq!(logs.take().unwrap().dropped, 7);
        assert_eq!(logs.take().unwrap().dropped, 0);
    }
}
