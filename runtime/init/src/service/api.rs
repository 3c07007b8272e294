//! The Runtime API's connections: bytes in, requests out; replies in, bytes out.

use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};

use hearth_runtime::channel::MAX_BODY;
use hearth_runtime::invoke::http::{CONTINUE, HttpError, MAX_HEAD, Parser, Reply, Request};

/// Connections of a function at once; one is what a runtime needs.
const MOST: usize = 64;
/// Bytes of requests that are not whole yet, of all connections: one of the largest, and another.
const MOST_HELD: usize = 2 * MAX_BODY;
/// Connections that are taken at a time: what the standard library lets wait.
const WAITING: usize = 128;
/// Bytes that are read at a time.
const CHUNK: usize = 16 * 1024;

/// One connection, for as long as it lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Id(u64);

/// The listener, and the connections.
pub(super) struct Api {
    listener: TcpListener,
    connections: BTreeMap<Id, Connection>,
    next: u64,
}

/// What came of a connection.
pub(super) enum Came {
    /// A whole request; nothing more is taken from the connection until it is replied to.
    Request(Id, Request),
    /// It is closed.
    Closed(Id),
}

struct Connection {
    socket: TcpStream,
    parser: Parser,
    out: Vec<u8>,
    sent: usize,
    /// A request of it is not replied to yet, and whether more are to follow.
    asked: Option<bool>,
    /// Bytes that came meanwhile.
    ahead: usize,
    /// Bytes that may be kept for its next request.
    room: usize,
    /// It ends with what is sent now.
    ends: bool,
}

impl Api {
    pub(super) fn new(listener: TcpListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        Ok(Self {
            listener,
            connections: BTreeMap::new(),
            next: 0,
        })
    }

    pub(super) fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    pub(super) fn listener(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }

    /// All connections, and whether something waits to be sent: then no more is heard.
    pub(super) fn connections(&self) -> impl Iterator<Item = (Id, BorrowedFd<'_>, bool)> {
        let all = self.connections.iter();
        all.map(|(id, connection)| (*id, connection.socket.as_fd(), connection.is_deaf()))
    }

    pub(super) fn ids(&self) -> Vec<Id> {
        self.connections.keys().copied().collect()
    }

    /// Takes those who connect, as many as can wait at once: others may come for ever.
    pub(super) fn accept(&mut self) {
        for _ in 0..WAITING {
            let Ok((socket, _)) = self.listener.accept() else {
                break;
            };
            // Replies are small and waited for.
            if socket.set_nonblocking(true).is_err() || socket.set_nodelay(true).is_err() {
                continue;
            }
            let mut connection = Connection::new(socket);
            if self.connections.len() >= MOST {
                let message = format!("{MOST} connections are open already");
                connection.reply(&Reply::error(503, "TooManyConnections", &message), false);
                // It is told as far as it takes it now.
                let _ = connection.write();
                continue;
            }
            self.connections.insert(Id(self.next), connection);
            self.next += 1;
        }
    }

    /// Sends what is taken on one, and reads at most so many chunks for its next request: however
    /// fast a function writes, it does not keep us from its deadline.
    pub(super) fn serve(&mut self, id: Id, chunks: usize) -> Option<Came> {
        let others = self.connections.iter().filter(|(other, _)| **other != id);
        let others: usize = others.map(|(_, other)| other.parser.held()).sum();
        let connection = self.connections.get_mut(&id)?;
        connection.room = MOST_HELD.saturating_sub(others);
        let Ok(request) = connection.serve(chunks) else {
            self.connections.remove(&id);
            return Some(Came::Closed(id));
        };
        Some(Came::Request(id, request?))
    }

    /// Replies to the request of a connection. [`serve`](Self::serve) it next: another may be here
    /// already.
    pub(super) fn reply(&mut self, id: Id, reply: &Reply) {
        if let Some(connection) = self.connections.get_mut(&id) {
            let keep = connection.asked.take().unwrap_or(false);
            connection.reply(reply, keep);
        }
    }
}

impl Connection {
    fn new(socket: TcpStream) -> Self {
        Self {
            socket,
            parser: Parser::new(MAX_BODY),
            out: Vec::new(),
            sent: 0,
            asked: None,
            ahead: 0,
            room: 0,
            ends: false,
        }
    }

    /// An error where the connection is over.
    fn serve(&mut self, chunks: usize) -> io::Result<Option<Request>> {
        self.write()?;
        let mut request = self.next()?;
        for _ in 0..chunks {
            if request.is_some() || self.is_deaf() || !self.read()? {
                break;
            }
            request = self.next()?;
        }
        Ok(request)
    }

    /// It has not taken what it was told: replies to more of it would pile up.
    fn is_deaf(&self) -> bool {
        !self.out.is_empty()
    }

    /// Whether something was read.
    fn read(&mut self) -> io::Result<bool> {
        let mut chunk = [0; CHUNK];
        match self.socket.read(&mut chunk) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => {
                if self.ends {
                    return Ok(true);
                }
                if self.asked.is_some() {
                    self.ahead += read;
                    if self.ahead > MAX_HEAD {
                        return Err(io::ErrorKind::InvalidData.into());
                    }
                }
                self.parser.feed(chunk.get(..read).unwrap_or_default());
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The next request, if it is here and the one before it was replied to.
    fn next(&mut self) -> io::Result<Option<Request>> {
        if self.asked.is_some() || self.ends || self.is_deaf() {
            return Ok(None);
        }
        match self.parser.take() {
            Ok(Some(request)) => {
                self.asked = Some(request.keep_alive);
                self.ahead = 0;
                Ok(Some(request))
            }
            Ok(None) if self.parser.held() > self.room => {
                self.parser = Parser::new(MAX_BODY);
                let message = "other connections have requests that are as large, and not whole";
                self.reply(&Reply::error(503, "TooManyBytes", message), false);
                self.write()?;
                Ok(None)
            }
            Ok(None) => {
                if self.parser.wants_continue() {
                    self.out.extend_from_slice(CONTINUE);
                    self.write()?;
                }
                Ok(None)
            }
            Err(error) => {
                self.refuse(&error);
                self.write()?;
                Ok(None)
            }
        }
    }

    fn refuse(&mut self, error: &HttpError) {
        let reply = Reply::error(error.status(), "InvalidRequest", &error.to_string());
        self.reply(&reply, false);
    }

    fn reply(&mut self, reply: &Reply, keep_alive: bool) {
        reply.encode(keep_alive, &mut self.out);
        self.ends = !keep_alive;
    }

    /// Sends what is taken now; an error where it was the last.
    fn write(&mut self) -> io::Result<()> {
        while self.sent < self.out.len() {
            let rest = self.out.get(self.sent..).unwrap_or_default();
            match self.socket.write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(sent) => self.sent += sent,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        // What a payload needed is not kept for the next one.
        self.out = Vec::new();
        self.sent = 0;
        if self.ends {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        Ok(())
    }
}
