//! The spawner as a program sees it that asks, and may wait for the answer.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use super::ask::{Answer, Ask, Claimed, Collapsed, Ended, Listed, Slots};
use super::{Places, Resources};
use crate::channel::{Connection, Frame, ReceiveError, SendError};
use crate::id::{Epoch, FunctionName, SandboxId};

/// Why the spawner did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum SpawnerError {
    /// Nobody there, or it does not take us.
    #[error("{path}: cannot connect to hearth-spawner: {error}; {}", remedy(.error), path = .path.display())]
    Connect {
        /// Where it should listen.
        path: PathBuf,
        /// What the kernel said.
        error: io::Error,
    },
    /// It ended, or has closed the connection: it takes 64 at once, of root and of its own user.
    #[error("{path}: hearth-spawner has closed the connection; connect again, and see its log for why", path = .path.display())]
    Closed {
        /// Where it listens.
        path: PathBuf,
    },
    /// It did not take the question.
    #[error("{path}: cannot ask hearth-spawner: {error}; connect again", path = .path.display())]
    Send {
        /// Where it listens.
        path: PathBuf,
        /// What happened.
        error: SendError,
    },
    /// It gave no answer that could be read, or none in time. What comes later would be taken for
    /// the answer to another question.
    #[error("{path}: no answer of hearth-spawner: {error}; connect again", path = .path.display())]
    Receive {
        /// Where it listens.
        path: PathBuf,
        /// What happened.
        error: ReceiveError,
    },
    /// It answered something else: it is of another version.
    #[error("{path}: hearth-spawner gives another answer than was asked for: {answer}; \
             start the spawner of this version of hearth", path = .path.display())]
    Unexpected {
        /// Where it listens.
        path: PathBuf,
        /// The answer.
        answer: String,
    },
    /// It says no.
    #[error("hearth-spawner refuses: {why}")]
    Refused {
        /// Why.
        why: String,
        /// Whether another attempt may do better.
        again: bool,
    },
}

fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            "start hearth-spawner, with the same --directory"
        }
        io::ErrorKind::PermissionDenied => "it takes root, and the user that it runs as",
        _ => "see its log",
    }
}

/// A connection to the spawner.
#[derive(Debug)]
pub struct Spawner {
    path: PathBuf,
    connection: Connection<Ask, Answer>,
    patience: Duration,
}

impl Spawner {
    /// Connects to the one that listens there. Each answer is waited for as long as `patience`.
    pub fn connect(places: &Places, patience: Duration) -> Result<Self, SpawnerError> {
        let path = places.spawner();
        let connected = UnixStream::connect(&path).and_then(Connection::new);
        match connected {
            Ok(connection) => Ok(Self {
                path,
                connection,
                patience,
            }),
            Err(error) => Err(SpawnerError::Connect { path, error }),
        }
    }

    /// Gives a sandbox for this function, within these limits.
    pub fn claim(
        &mut self,
        function: FunctionName,
        resources: Resources,
    ) -> Result<Claimed, SpawnerError> {
        match self.ask(Ask::Claim {
            function,
            resources,
        })? {
            Answer::Claimed(claimed) => Ok(claimed),
            other => Err(self.unexpected(&other)),
        }
    }

    /// Ends one, and returns when it is gone.
    pub fn end(&mut self, sandbox: SandboxId) -> Result<Ended, SpawnerError> {
        match self.ask(Ask::End { sandbox })? {
            Answer::Ended(ended) => Ok(ended),
            other => Err(self.unexpected(&other)),
        }
    }

    /// Gathers the memory of one into huge pages, and returns when that is done.
    pub fn collapse(&mut self, sandbox: SandboxId) -> Result<Collapsed, SpawnerError> {
        match self.ask(Ask::Collapse { sandbox })? {
            Answer::Collapsed(collapsed) => Ok(collapsed),
            other => Err(self.unexpected(&other)),
        }
    }

    /// All that are claimed, by id.
    pub fn list(&mut self) -> Result<Vec<Listed>, SpawnerError> {
        let mut all: Vec<Listed> = Vec::new();
        loop {
            let after = all.last().map(|last| last.sandbox);
            match self.ask(Ask::List { after })? {
                Answer::Sandboxes { claimed, more } => {
                    let is_last = !more || claimed.is_empty();
                    all.extend(claimed);
                    if is_last {
                        return Ok(all);
                    }
                }
                other => return Err(self.unexpected(&other)),
            }
        }
    }

    /// How the slots are.
    pub fn slots(&mut self) -> Result<Slots, SpawnerError> {
        match self.ask(Ask::Slots)? {
            Answer::Slots(slots) => Ok(slots),
            other => Err(self.unexpected(&other)),
        }
    }

    /// From now on this connection tells of sandboxes that end by themselves.
    pub fn watch(mut self) -> Result<Watch, SpawnerError> {
        match self.ask(Ask::Watch)? {
            Answer::Watching => Ok(Watch(self)),
            other => Err(self.unexpected(&other)),
        }
    }

    fn ask(&mut self, ask: Ask) -> Result<Answer, SpawnerError> {
        let sent = self
            .connection
            .send(&Frame::new(Epoch::default(), ask), self.patience);
        sent.map_err(|error| SpawnerError::Send {
            path: self.path.clone(),
            error,
        })?;
        match self.receive(self.patience)? {
            Answer::Refused { why, again } => Err(SpawnerError::Refused { why, again }),
            answer => Ok(answer),
        }
    }

    fn receive(&mut self, patience: Duration) -> Result<Answer, SpawnerError> {
        match self.connection.receive(patience) {
            Ok(Some(frame)) => Ok(frame.message),
            Ok(None) => Err(SpawnerError::Closed {
                path: self.path.clone(),
            }),
            Err(error) => Err(SpawnerError::Receive {
                path: self.path.clone(),
                error,
            }),
        }
    }

    fn unexpected(&self, answer: &Answer) -> SpawnerError {
        SpawnerError::Unexpected {
            path: self.path.clone(),
            answer: format!("{answer:?}").chars().take(200).collect(),
        }
    }
}

/// A connection on which the spawner tells of ends.
#[derive(Debug)]
pub struct Watch(Spawner);

impl Watch {
    /// The next sandbox that has ended by itself; none where that was not within `patience`.
    pub fn next(&mut self, patience: Duration) -> Result<Option<Ended>, SpawnerError> {
        match self.0.receive(patience) {
            Ok(Answer::Ended(ended)) => Ok(Some(ended)),
            Ok(other) => Err(self.0.unexpected(&other)),
            Err(SpawnerError::Receive {
                error: ReceiveError::Deadline(_),
                ..
            }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}
