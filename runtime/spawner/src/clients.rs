//! Who asks: connections to the spawner's socket, none of which it ever waits for.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::net::{UnixListener, UnixStream};

use hearth_runtime::channel::{Decoder, Frame};
use hearth_runtime::id::{Epoch, RequestId};
use hearth_runtime::sandbox::ask::{Answer, Ask};

use crate::log::say;
use crate::poll::{Poll, Source};

/// Connections at once.
pub(crate) const MOST: usize = 64;
/// Bytes of questions that are held for one client: a question has less than a kilobyte.
const MOST_IN: usize = 512 * 1024;
/// Bytes of answers that a client has not taken yet.
const MOST_OUT: usize = 1024 * 1024;

/// Who asked, and by which name the question goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Asker {
    pub(crate) client: u32,
    pub(crate) request: Option<RequestId>,
}

/// All of them.
#[derive(Debug)]
pub(crate) struct Clients {
    listener: UnixListener,
    open: BTreeMap<u32, Client>,
    next: u32,
}

#[derive(Debug)]
struct Client {
    stream: UnixStream,
    decoder: Decoder,
    out: Vec<u8>,
    is_watching: bool,
}

impl Clients {
    pub(crate) fn new(listener: UnixListener, poll: &Poll) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        poll.add(&listener, Source::Listener)?;
        Ok(Self {
            listener,
            open: BTreeMap::new(),
            next: 0,
        })
    }

    /// Takes who wants to connect, or closes the connection at once.
    pub(crate) fn accept(&mut self, poll: &Poll) {
        let stream = match self.listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return,
            Err(error) => {
                say!("cannot accept a connection: {error}");
                return;
            }
        };
        if self.open.len() >= MOST {
            say!("a connection was closed: {MOST} others are open, which is the most");
            return;
        }
        if let Err(error) = self.admit(stream, poll) {
            say!("a connection was closed: {error}");
        }
    }

    fn admit(&mut self, stream: UnixStream, poll: &Poll) -> io::Result<()> {
        let peer = rustix::net::sockopt::socket_peercred(&stream)?;
        if !peer.uid.is_root() && peer.uid != rustix::process::geteuid() {
            let why = format!("process {} is of user {}", peer.pid.as_raw_pid(), peer.uid);
            return Err(io::Error::new(ErrorKind::PermissionDenied, why));
        }
        stream.set_nonblocking(true)?;
        while self.open.contains_key(&self.next) {
            self.next = self.next.wrapping_add(1);
        }
        poll.add(&stream, Source::Client(self.next))?;
        let client = Client {
            stream,
            decoder: Decoder::default(),
            out: Vec::new(),
            is_watching: false,
        };
        self.open.insert(self.next, client);
        self.next = self.next.wrapping_add(1);
        Ok(())
    }

    /// What a client asks; it also takes what it was not ready for before.
    pub(crate) fn attend(&mut self, number: u32, poll: &Poll) -> Vec<(Asker, Ask)> {
        let mut asked = Vec::new();
        let Some(client) = self.open.get_mut(&number) else {
            return asked;
        };
        let attended = client.read(number, &mut asked);
        let attended = attended.and_then(|()| client.flush(number, poll));
        if let Err(error) = attended {
            if error.kind() != ErrorKind::UnexpectedEof {
                say!("a connection was closed: {error}");
            }
            self.close(number, poll);
            // Who is gone before the answer wants none; and a claim would be nobody's.
            asked.retain(|(_, ask)| matches!(ask, Ask::End { .. }));
        }
        asked
    }

    /// Answers a question, if who asked is still there.
    pub(crate) fn answer(&mut self, asker: Asker, answer: Answer, poll: &Poll) {
        let Some(client) = self.open.get_mut(&asker.client) else {
            return;
        };
        if answer == Answer::Watching {
            client.is_watching = true;
        }
        let mut frame = Frame::new(Epoch::default(), answer);
        frame.request = asker.request;
        self.send(asker.client, &frame, poll);
    }

    /// Tells all who watch.
    pub(crate) fn tell(&mut self, answer: &Answer, poll: &Poll) {
        let watching = self.open.iter().filter(|(_, client)| client.is_watching);
        let watching: Vec<u32> = watching.map(|(number, _)| *number).collect();
        for number in watching {
            self.send(number, &Frame::new(Epoch::default(), answer.clone()), poll);
        }
    }

    fn send(&mut self, number: u32, frame: &Frame<Answer>, poll: &Poll) {
        let Some(client) = self.open.get_mut(&number) else {
            return;
        };
        let queued = frame.encode(&mut client.out).map_err(io::Error::other);
        let sent = queued.and_then(|()| client.flush(number, poll));
        if let Err(error) = sent {
            say!("a connection was closed: {error}");
            self.close(number, poll);
        }
    }

    /// Whether somebody still waits for an answer.
    pub(crate) fn is_there(&self, asker: Asker) -> bool {
        self.open.contains_key(&asker.client)
    }

    fn close(&mut self, number: u32, poll: &Poll) {
        if let Some(client) = self.open.remove(&number) {
            poll.remove(client.stream.as_fd());
        }
    }
}

impl Client {
    /// Some of what came: who sends without end does not keep the others waiting.
    fn read(&mut self, number: u32, questions: &mut Vec<(Asker, Ask)>) -> io::Result<()> {
        let mut bytes = [0; 16 * 1024];
        match self.stream.read(&mut bytes) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(read) => self.decoder.feed(bytes.get(..read).unwrap_or_default()),
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::Interrupted => return Ok(()),
                ErrorKind::ConnectionReset => return Err(ErrorKind::UnexpectedEof.into()),
                _ => return Err(error),
            },
        }
        while let Some(frame) = self.decoder.take::<Ask>().map_err(io::Error::other)? {
            let asker = Asker {
                client: number,
                request: frame.request,
            };
            questions.push((asker, frame.message));
        }
        if self.decoder.held() > MOST_IN {
            return Err(io::Error::other("it sends what is no question"));
        }
        Ok(())
    }

    /// Sends as much as is taken.
    fn flush(&mut self, number: u32, poll: &Poll) -> io::Result<()> {
        let was_waiting = !self.out.is_empty();
        while !self.out.is_empty() {
            match self.stream.write(&self.out) {
                Ok(sent) => drop(self.out.drain(..sent)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::BrokenPipe => {
                    return Err(ErrorKind::UnexpectedEof.into());
                }
                Err(error) => return Err(error),
            }
        }
        if self.out.len() > MOST_OUT {
            return Err(io::Error::other("it does not take its answers"));
        }
        if self.out.is_empty() {
            self.out.shrink_to(64 * 1024);
        }
        if was_waiting || !self.out.is_empty() {
            poll.also_out(&self.stream, Source::Client(number), !self.out.is_empty())?;
        }
        Ok(())
    }
}
