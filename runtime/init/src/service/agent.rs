//! The channel: who connects last is the one that is spoken with. It is never waited for.

use std::collections::VecDeque;
use std::io::{self, Write as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Instant;

use hearth_runtime::channel::{Decoder, Frame};
use hearth_runtime::sandbox::message::ToSandbox;
use rustix::io::Errno;

use super::piece::{EPOCH, Piece};

/// Bytes that wait to be sent before more of the log is put behind them.
const ROOM: usize = 64 * 1024;
/// Bytes that wait to be sent to somebody who still is listened to: an answer, with much to spare.
const MOST: usize = 16 * 1024 * 1024;

/// The listener, and who is connected.
pub(super) struct Agent {
    listener: UnixListener,
    link: Option<Link>,
    /// Bytes of the log that were to be sent to somebody who is gone.
    lost: usize,
}

struct Link {
    socket: UnixStream,
    since: Instant,
    decoder: Decoder,
    queue: VecDeque<Piece>,
    /// How much of the first one has gone.
    sent: usize,
    held: usize,
}

/// What came of reading.
enum Read {
    Some,
    Nothing,
    End,
}

impl Agent {
    pub(super) fn new(listener: UnixListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        Ok(Self {
            listener,
            link: None,
            lost: 0,
        })
    }

    pub(super) fn listener(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }

    /// The connection, and whether something waits to be sent on it.
    pub(super) fn connection(&self) -> Option<(BorrowedFd<'_>, bool)> {
        let link = self.link.as_ref()?;
        Some((link.socket.as_fd(), !link.queue.is_empty()))
    }

    /// Since when somebody is connected.
    pub(super) fn since(&self) -> Option<Instant> {
        self.link.as_ref().map(|link| link.since)
    }

    /// Whether the next piece of the log would be sent soon.
    pub(super) fn has_room(&self) -> bool {
        self.link.as_ref().is_some_and(|link| link.held < ROOM)
    }

    /// Bytes of the log that did not arrive, as far as is known; told once.
    pub(super) fn lost(&mut self) -> usize {
        std::mem::take(&mut self.lost)
    }

    /// Takes who connects, in place of who was; whether there was somebody.
    pub(super) fn accept(&mut self) -> bool {
        let Ok((socket, _)) = self.listener.accept() else {
            return false;
        };
        if socket.set_nonblocking(true).is_err() {
            return false;
        }
        self.close();
        self.link = Some(Link {
            socket,
            since: Instant::now(),
            decoder: Decoder::default(),
            queue: VecDeque::new(),
            sent: 0,
            held: 0,
        });
        true
    }

    pub(super) fn close(&mut self) {
        if let Some(link) = self.link.take() {
            self.lost += link.queue.iter().map(|piece| piece.logged).sum::<usize>();
        }
    }

    /// Reads at most so many times; the messages that are whole now. Who says what is none is not
    /// listened to any more.
    pub(super) fn read(&mut self, times: usize) -> Vec<Frame<ToSandbox>> {
        let mut frames = Vec::new();
        for _ in 0..times {
            let Some(link) = &mut self.link else { break };
            match link.read(&mut frames) {
                Ok(Read::Some) => continue,
                Ok(Read::Nothing) => {}
                Ok(Read::End) => self.close(),
                Err(error) => {
                    eprintln!("hearth-init: a connection is closed: {error}");
                    self.close();
                }
            }
            break;
        }
        // One of another life of this sandbox is not meant for this one.
        frames.retain(|frame| frame.epoch == EPOCH);
        frames
    }

    /// Says it to who is connected, as soon as it is taken.
    pub(super) fn tell(&mut self, piece: Piece) {
        let Some(link) = &mut self.link else {
            self.lost += piece.logged;
            return;
        };
        link.held += piece.bytes.len();
        link.queue.push_back(piece);
        self.flush();
    }

    /// Sends what is taken now.
    pub(super) fn flush(&mut self) {
        let Some(link) = &mut self.link else { return };
        if link.write().is_err() || link.held > MOST {
            self.close();
        }
    }
}

impl Link {
    fn read(&mut self, frames: &mut Vec<Frame<ToSandbox>>) -> Result<Read, anyhow::Error> {
        let spare = rustix::buffer::spare_capacity(self.decoder.spare());
        match rustix::io::read(&self.socket, spare) {
            Ok(0) => {
                self.decoder.end()?;
                return Ok(Read::End);
            }
            Ok(_) => {}
            Err(Errno::AGAIN | Errno::INTR) => return Ok(Read::Nothing),
            Err(Errno::CONNRESET) => return Ok(Read::End),
            Err(error) => return Err(error.into()),
        }
        while let Some(frame) = self.decoder.take()? {
            frames.push(frame);
        }
        Ok(Read::Some)
    }

    fn write(&mut self) -> io::Result<()> {
        while let Some(piece) = self.queue.front() {
            let rest = piece.bytes.get(self.sent..).unwrap_or_default();
            if rest.is_empty() {
                self.queue.pop_front();
                self.sent = 0;
                continue;
            }
            match self.socket.write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(sent) => {
                    self.sent += sent;
                    self.held -= sent;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
