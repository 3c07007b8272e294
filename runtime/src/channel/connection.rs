//! One end of a channel over a Unix socket, for who may wait: `hearth`'s command line, tests.

use std::io::{self, Read, Write};
use std::marker::PhantomData;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::frame::{Decoder, Frame, FrameError};

/// Why nothing was received.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    /// Not one that this end can read; the connection is of no use any more.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// Nothing came in time; it may still come.
    #[error("nothing came within {0:?}")]
    Deadline(Duration),
    /// The socket failed.
    #[error("the channel cannot be read: {0}")]
    Io(#[from] io::Error),
}

/// Why something was not sent.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// It is none that may be sent; the connection is as it was.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The other end did not take it in time. Part of it may have gone: the connection is of no
    /// use any more.
    #[error("the other end took no more within {0:?}")]
    Deadline(Duration),
    /// The socket failed.
    #[error("the channel cannot be written: {0}")]
    Io(#[from] io::Error),
}

/// What there was to receive.
#[derive(Debug)]
pub enum Received<M> {
    /// A frame.
    Frame(Box<Frame<M>>),
    /// The other end has closed.
    Closed,
    /// Somebody woke the receiver; what was on its way still is.
    Woken,
}

/// One end: sends `S`, receives `R`.
#[derive(Debug)]
pub struct Connection<S, R> {
    socket: UnixStream,
    decoder: Decoder,
    out: Vec<u8>,
    messages: PhantomData<fn(S) -> R>,
}

impl<S: Serialize, R: DeserializeOwned> Connection<S, R> {
    /// Over a connected socket.
    pub fn new(socket: UnixStream) -> io::Result<Self> {
        socket.set_nonblocking(false)?;
        Ok(Self {
            socket,
            decoder: Decoder::default(),
            out: Vec::new(),
            messages: PhantomData,
        })
    }

    /// Sends one frame within `patience`.
    pub fn send(&mut self, frame: &Frame<S>, patience: Duration) -> Result<(), SendError> {
        self.out.clear();
        frame.encode(&mut self.out)?;
        let deadline = Instant::now() + patience;
        let mut rest = &*self.out;
        while !rest.is_empty() {
            let left = left(deadline).ok_or(SendError::Deadline(patience))?;
            self.socket.set_write_timeout(Some(left))?;
            match self.socket.write(rest) {
                Ok(0) => return Err(io::Error::from(io::ErrorKind::WriteZero).into()),
                Ok(sent) => rest = rest.get(sent..).unwrap_or_default(),
                Err(error) if again(&error) => {}
                Err(error) => return Err(error.into()),
            }
        }
        // What a payload needed is not kept for the next, which mostly is small.
        self.out.shrink_to(64 * 1024);
        Ok(())
    }

    /// The next frame, within `patience`; none where the other end has closed.
    pub fn receive(&mut self, patience: Duration) -> Result<Option<Frame<R>>, ReceiveError> {
        match self.receive_unless(patience, None)? {
            Received::Frame(frame) => Ok(Some(*frame)),
            Received::Closed | Received::Woken => Ok(None),
        }
    }

    /// The next frame, within `patience`, unless `wake` becomes readable first.
    pub fn receive_unless(
        &mut self,
        patience: Duration,
        wake: Option<BorrowedFd<'_>>,
    ) -> Result<Received<R>, ReceiveError> {
        let deadline = Instant::now() + patience;
        let mut bytes = vec![0; 64 * 1024];
        loop {
            if let Some(frame) = self.decoder.take()? {
                return Ok(Received::Frame(Box::new(frame)));
            }
            let left = left(deadline).ok_or(ReceiveError::Deadline(patience))?;
            if !self.is_readable(left, wake)? {
                return Ok(Received::Woken);
            }
            self.socket.set_read_timeout(Some(left))?;
            match self.socket.read(&mut bytes) {
                Ok(0) => break,
                Ok(read) => self.decoder.feed(bytes.get(..read).unwrap_or_default()),
                Err(error) if again(&error) => {}
                // It closed before it had read all that it was sent.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => break,
                Err(error) => return Err(error.into()),
            }
        }
        self.decoder.end()?;
        Ok(Received::Closed)
    }

    /// Waits for one of both; whether there is something to read, or was nothing in time.
    fn is_readable(&self, left: Duration, wake: Option<BorrowedFd<'_>>) -> io::Result<bool> {
        let Some(wake) = wake else {
            return Ok(true);
        };
        let left = Timespec::try_from(left).unwrap_or(Timespec {
            tv_sec: i64::MAX,
            tv_nsec: 0,
        });
        let mut both = [
            PollFd::new(&self.socket, PollFlags::IN),
            PollFd::from_borrowed_fd(wake, PollFlags::IN),
        ];
        rustix::io::retry_on_intr(|| poll(&mut both, Some(&left)))?;
        let [socket, wake] = both;
        Ok(!socket.revents().is_empty() || wake.revents().is_empty())
    }
}

impl<S, R> AsFd for Connection<S, R> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Time until `deadline`, which is never a timeout of zero: for a socket that means none.
fn left(deadline: Instant) -> Option<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    (!left.is_zero()).then_some(left.max(Duration::from_millis(1)))
}

fn again(error: &io::Error) -> bool {
    use io::ErrorKind::{Interrupted, TimedOut, WouldBlock};
    matches!(error.kind(), Interrupted | TimedOut | WouldBlock)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::super::frame::MAX_BODY;
    use super::*;
    use crate::id::{Epoch, RequestId};

    type End = Connection<String, String>;

    fn ends() -> (End, End) {
        let (a, b) = UnixStream::pair().unwrap();
        (End::new(a).unwrap(), End::new(b).unwrap())
    }

    const SOON: Duration = Duration::from_millis(30);
    const LONG: Duration = Duration::from_secs(20);

    #[test]
    fn the_largest_payload_goes_through_and_is_answered() {
        let (mut here, mut there) = ends();
        let echo = std::thread::spawn(move || {
            while let Some(mut frame) = there.receive(LONG).unwrap() {
                frame.message.push('!');
                there.send(&frame, LONG).unwrap();
            }
        });
        let mut frame = Frame::new(Epoch(3), "hello".to_owned());
        frame.request = Some(RequestId::from_u128(7));
        frame.left = Some(Duration::from_millis(1500));
        frame.body = (0..=250).cycle().take(MAX_BODY).collect();
        here.send(&frame, LONG).unwrap();
        let answer = here.receive(LONG).unwrap().unwrap();
        frame.message.push('!');
        assert_eq!(answer, frame);
        drop(here);
        echo.join().unwrap();
    }

    #[test]
    fn a_silent_and_a_stuck_end_cost_no_more_than_the_deadline() {
        let (mut here, there) = ends();
        assert!(matches!(
            here.receive(SOON),
            Err(ReceiveError::Deadline(SOON))
        ));
        let mut frame = Frame::new(Epoch(1), String::new());
        frame.body = vec![0; MAX_BODY];
        assert!(matches!(
            here.send(&frame, SOON),
            Err(SendError::Deadline(SOON))
        ));
        drop(there);
        assert!(matches!(here.receive(LONG), Ok(None)));
    }

    #[test]
    fn who_waits_can_be_woken_and_misses_nothing() {
        use rustix::event::{EventfdFlags, eventfd};
        let (mut here, mut there) = ends();
        let wake = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
        let frame = Frame::new(Epoch(1), "hello".to_owned());
        there.send(&frame, LONG).unwrap();
        let received = here.receive_unless(LONG, Some(wake.as_fd())).unwrap();
        assert!(matches!(received, Received::Frame(got) if *got == frame));
        rustix::io::write(&wake, &1_u64.to_ne_bytes()).unwrap();
        let received = here.receive_unless(LONG, Some(wake.as_fd())).unwrap();
        assert!(matches!(received, Received::Woken), "{received:?}");
        // What is there goes first.
        there.send(&frame, LONG).unwrap();
        let received = here.receive_unless(LONG, Some(wake.as_fd())).unwrap();
        assert!(matches!(received, Received::Frame(_)), "{received:?}");
    }

    #[test]
    fn an_end_that_goes_in_the_middle_of_a_frame_is_told() {
        let (socket, mut raw) = UnixStream::pair().unwrap();
        let mut here = End::new(socket).unwrap();
        let mut bytes = Vec::new();
        Frame::new(Epoch(1), "hello".to_owned())
            .encode(&mut bytes)
            .unwrap();
        raw.write_all(&bytes[..bytes.len() - 1]).unwrap();
        drop(raw);
        let told = here.receive(LONG).unwrap_err();
        assert!(
            matches!(told, ReceiveError::Frame(FrameError::Torn { missing: 1 })),
            "{told}"
        );
    }
}
