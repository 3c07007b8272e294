//! The function's standard output and error: pipes on this side, pieces of whole lines on the other.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use hearth_runtime::id::RequestId;
use hearth_runtime::sandbox::message::Stream;
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::pipe::PipeFlags;

use super::logs::Logs;

/// Bytes of a line that are waited for; a longer one is told in parts.
const LONGEST: usize = 16 * 1024;
/// Bytes that are read at a time.
const CHUNK: usize = 16 * 1024;

/// Both streams, and what came of them.
#[derive(Debug, Default)]
pub(super) struct Output {
    sources: Vec<Source>,
    pub(super) logs: Logs,
}

#[derive(Debug)]
struct Source {
    stream: Stream,
    pipe: OwnedFd,
    /// The beginning of a line.
    rest: Vec<u8>,
}

/// Whether there may be more.
#[derive(PartialEq, Eq)]
enum Read {
    Some(usize),
    NoMore,
}

impl Output {
    /// The function's ends of two pipes.
    pub(super) fn open(&mut self) -> io::Result<(OwnedFd, OwnedFd)> {
        Ok((self.pipe(Stream::Out)?, self.pipe(Stream::Err)?))
    }

    fn pipe(&mut self, stream: Stream) -> io::Result<OwnedFd> {
        let (pipe, theirs) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
        // Only this end: what a function writes may wait for us, as it would for any reader.
        rustix::fs::fcntl_setfl(&pipe, OFlags::NONBLOCK)?;
        self.sources.push(Source {
            stream,
            pipe,
            rest: Vec::new(),
        });
        Ok(theirs)
    }

    /// Those that are open.
    pub(super) fn pipes(&self) -> impl Iterator<Item = (Stream, BorrowedFd<'_>)> {
        let pipes = self.sources.iter();
        pipes.map(|source| (source.stream, source.pipe.as_fd()))
    }

    /// Reads once from one.
    pub(super) fn read(&mut self, stream: Stream, request: Option<RequestId>) {
        let logs = &mut self.logs;
        self.sources.retain_mut(|source| {
            source.stream != stream || source.read(request, logs) != Read::NoMore
        });
    }

    /// Reads all that was written until now, parts of lines too: what follows is not of `request`.
    pub(super) fn drain(&mut self, request: Option<RequestId>) {
        let logs = &mut self.logs;
        self.sources
            .retain_mut(|source| source.drain(request, logs) != Read::NoMore);
    }

    /// Whether there is a part of a line.
    pub(super) fn has_parts(&self) -> bool {
        self.sources.iter().any(|source| !source.rest.is_empty())
    }

    /// Does not wait longer for the ends of lines.
    pub(super) fn flush(&mut self, request: Option<RequestId>) {
        for source in &mut self.sources {
            source.flush(request, &mut self.logs);
        }
    }
}

impl Source {
    fn read(&mut self, request: Option<RequestId>, logs: &mut Logs) -> Read {
        let mut chunk = [0; CHUNK];
        let read = match rustix::io::read(&self.pipe, &mut chunk) {
            Ok(0) => {
                self.flush(request, logs);
                return Read::NoMore;
            }
            Ok(read) => read,
            Err(Errno::AGAIN | Errno::INTR) => return Read::Some(0),
            Err(_) => return Read::NoMore,
        };
        let bytes = chunk.get(..read).unwrap_or_default();
        let lines = bytes.iter().rposition(|byte| *byte == b'\n');
        let (lines, part) = bytes.split_at(lines.map_or(0, |last| last + 1));
        if !lines.is_empty() {
            self.rest.extend_from_slice(lines);
            self.flush(request, logs);
        }
        self.rest.extend_from_slice(part);
        if self.rest.len() >= LONGEST {
            self.flush(request, logs);
        }
        Read::Some(read)
    }

    fn drain(&mut self, request: Option<RequestId>, logs: &mut Logs) -> Read {
        // Just what is there now: a function that never stops writing must not keep us here.
        let there = rustix::io::ioctl_fionread(&self.pipe).unwrap_or(0);
        let mut left = usize::try_from(there).unwrap_or(usize::MAX);
        while left > 0 {
            match self.read(request, logs) {
                Read::NoMore => return Read::NoMore,
                Read::Some(0) => break,
                Read::Some(read) => left = left.saturating_sub(read),
            }
        }
        self.flush(request, logs);
        Read::Some(0)
    }

    fn flush(&mut self, request: Option<RequestId>, logs: &mut Logs) {
        logs.push(self.stream, request, std::mem::take(&mut self.rest));
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn told(output: &mut Output) -> Vec<String> {
        let logs = std::iter::from_fn(|| output.logs.take());
        logs.map(|log| String::from_utf8(log.bytes).unwrap())
            .collect()
    }

    #[test]
    fn lines_are_told_whole_and_the_rest_when_nothing_more_is_waited_for() {
        let mut output = Output::default();
        let (out, _err) = output.open().unwrap();
        let say = |output: &mut Output, text: &str| {
            rustix::io::write(&out, text.as_bytes()).unwrap();
            output.read(Stream::Out, None);
        };
        say(&mut output, "a\nb\nc");
        assert_eq!(told(&mut output), ["a\nb\n"]);
        assert!(output.has_parts());
        say(&mut output, "d\ne");
        assert_eq!(told(&mut output), ["cd\n"]);
        output.drain(None);
        assert_eq!(told(&mut output), ["e"]);
        assert!(!output.has_parts());
        let long = "x".repeat(LONGEST);
        say(&mut output, &long);
        assert_eq!(told(&mut output), [long]);
    }

    #[test]
    fn a_stream_that_was_closed_is_not_looked_at_any_more() {
        let mut output = Output::default();
        let (out, _err) = output.open().unwrap();
        rustix::io::write(&out, b"last").unwrap();
        drop(out);
        output.read(Stream::Out, None);
        output.read(Stream::Out, None);
        assert_eq!(told(&mut output), ["last"]);
        let open: Vec<Stream> = output.pipes().map(|(stream, _)| stream).collect();
        assert_eq!(open, [Stream::Err]);
    }
}
