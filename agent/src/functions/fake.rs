//! Sandboxes for tests, whose functions do what their payload says.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use hearth_runtime::id::{Epoch, FunctionName, RequestId, SandboxId, SlotName};
use hearth_runtime::process::{Process, StartTime};
use hearth_runtime::sandbox::Resources;
use hearth_runtime::sandbox::ask::{Claimed, Collapsed, Ended, Listed};
use hearth_runtime::sandbox::backend::{
    Abilities, Backend, Cancel, Hello, Outcome, Prepared, Sandbox, SandboxError, Started, Told,
    Work,
};
use hearth_runtime::sandbox::message::{Exit, NotStarted, State, Stream, fault};
use hearth_runtime::sandbox::spawner::SpawnerError;
use hearth_runtime::sandbox::start::Start;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::node::Node;

/// A node on which nothing runs.
#[derive(Clone, Default)]
pub(crate) struct Fake(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    /// No spawner listens.
    is_gone: bool,
    /// Claims that are refused for now.
    refusals: u32,
    /// Times that the socket of one that is looked for is busy.
    busy: u32,
    /// This one takes no notice of who is connected.
    mute: Option<SandboxId>,
    /// How often it was spoken to.
    spoken: u32,
    /// Each that is looked for answers when so many are,
    together: usize,
    /// of those that were.
    sought: usize,
    alive: BTreeMap<SandboxId, Alive>,
    made: u32,
    ended: Vec<SandboxId>,
    /// Ended by themselves, and not told yet.
    untold: Vec<SandboxId>,
    /// Those who are told.
    watchers: u32,
    collapsed: Vec<SandboxId>,
    /// Whoever is told to hold does.
    holds: bool,
    /// What each of them weighs.
    weight: Option<u64>,
}

struct Alive {
    function: FunctionName,
    version: u32,
    state: State,
    /// The other end of what is its descriptor; dropped when it ends.
    other: Option<UnixStream>,
}

impl Fake {
    fn inner(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.0.lock().expect("no test panics with it")
    }

    pub(crate) fn set_gone(&self, is_gone: bool) {
        self.inner().is_gone = is_gone;
    }

    /// The next few claims are refused for now.
    pub(crate) fn refuse(&self, refusals: u32) {
        self.inner().refusals = refusals;
    }

    /// The sockets of the next few that are looked for are busy.
    pub(crate) fn be_busy(&self, times: u32) {
        self.inner().busy = times;
    }

    /// This one takes no notice of who is connected.
    pub(crate) fn mute(&self, sandbox: SandboxId) {
        self.inner().mute = Some(sandbox);
    }

    /// How often that one was spoken to.
    pub(crate) fn spoken(&self) -> u32 {
        self.inner().spoken
    }

    /// Who is looked for answers when so many are.
    pub(crate) fn answer_together(&self, together: usize) {
        self.inner().together = together;
    }

    /// Whoever is told to hold does, or lets go.
    pub(crate) fn hold(&self, holds: bool) {
        self.inner().holds = holds;
    }

    /// Each of them weighs so much.
    pub(crate) fn weigh_each(&self, bytes: u64) {
        self.inner().weight = Some(bytes);
    }

    /// Those whose memory was to be gathered.
    pub(crate) fn collapsed(&self) -> Vec<SandboxId> {
        self.inner().collapsed.clone()
    }

    /// How many were made, and are alive.
    pub(crate) fn counts(&self) -> (u32, usize) {
        let inner = self.inner();
        (inner.made, inner.alive.len())
    }

    /// One ends by itself.
    pub(crate) fn kill(&self, sandbox: SandboxId) {
        let mut inner = self.inner();
        if let Some(alive) = inner.alive.get_mut(&sandbox) {
            alive.other = None;
            inner.untold.push(sandbox);
        }
    }

    /// How many are told of those that end by themselves.
    pub(crate) fn watchers(&self) -> u32 {
        self.inner().watchers
    }

    /// It writes something though nobody asked it to.
    pub(crate) fn mutter(&self, sandbox: SandboxId) {
        if let Some(alive) = self.inner().alive.get_mut(&sandbox) {
            let other = alive.other.as_mut().expect("alive");
            other.write_all(b"x").expect("a socket");
        }
    }

    /// One that an agent before this one left.
    pub(crate) fn leave(&self, function: &str, version: u32, state: State) -> SandboxId {
        let id = SandboxId::random().expect("random bytes");
        let alive = Alive {
            function: function.parse().expect("a name"),
            version,
            state,
            other: None,
        };
        self.inner().alive.insert(id, alive);
        id
    }

    fn connected(&self, id: SandboxId) -> FakeSandbox {
        let (socket, other) = UnixStream::pair().expect("a pair");
        if let Some(alive) = self.inner().alive.get_mut(&id) {
            alive.other = Some(other);
        }
        socket.set_nonblocking(true).expect("a socket");
        FakeSandbox {
            id,
            socket,
            node: self.clone(),
        }
    }
}

fn nobody() -> SandboxError {
    SandboxError::Spawner(SpawnerError::Connect {
        path: "/run/hearth/spawner.sock".into(),
        error: std::io::ErrorKind::NotFound.into(),
    })
}

fn process() -> Process {
    Process {
        pid: 4711,
        start: StartTime(1),
    }
}

impl Backend for Fake {
    fn abilities(&self) -> Abilities {
        Abilities::default()
    }

    fn prepare(&self, function: &FunctionName, _: Resources) -> Result<Prepared, SandboxError> {
        if self.inner().is_gone {
            return Err(nobody());
        }
        if self.inner().refusals > 0 {
            self.inner().refusals -= 1;
            return Err(SandboxError::Spawner(SpawnerError::Refused {
                why: "no slot is clean".to_owned(),
                again: true,
            }));
        }
        let id = self.leave(function.as_str(), 0, State::Parked);
        self.inner().made += 1;
        Ok(Prepared {
            sandbox: Box::new(self.connected(id)),
            claimed: Claimed {
                sandbox: id,
                epoch: Epoch(1),
                init: process(),
                slot: SlotName(7),
                cgroup: "/hearth/slot-0007".to_owned(),
                was_parked: true,
                limits: Vec::new(),
            },
        })
    }

    fn find(&self, listed: &Listed) -> Result<(Box<dyn Sandbox>, Hello), SandboxError> {
        {
            let mut inner = self.inner();
            if inner.busy > 0 {
                inner.busy -= 1;
                return Err(SandboxError::Connect {
                    sandbox: listed.sandbox,
                    path: String::new(),
                    error: std::io::ErrorKind::WouldBlock.into(),
                });
            }
            if inner.mute == Some(listed.sandbox) {
                inner.spoken += 1;
                return Err(SandboxError::Silent(Duration::ZERO));
            }
            inner.sought += 1;
        }
        let deadline = Instant::now() + Duration::from_secs(5);
        let is_alone = || {
            let inner = self.inner();
            inner.sought < inner.together
        };
        while is_alone() {
            if Instant::now() > deadline {
                return Err(SandboxError::Silent(Duration::ZERO));
            }
            thread::sleep(Duration::from_millis(1));
        }
        let sandbox = self.connected(listed.sandbox);
        let inner = self.inner();
        let alive = inner.alive.get(&listed.sandbox).ok_or(SandboxError::Gone)?;
        let hello = Hello {
            state: alive.state,
            function: Some((alive.function.clone(), alive.version)),
        };
        Ok((Box::new(sandbox), hello))
    }

    fn end(&self, sandbox: SandboxId) -> Result<Ended, SandboxError> {
        let mut inner = self.inner();
        if inner.is_gone {
            return Err(nobody());
        }
        let alive = inner.alive.remove(&sandbox);
        inner.ended.push(sandbox);
        let hogged = alive.is_some_and(|alive| alive.version == HOG);
        Ok(Ended {
            sandbox,
            how: Exit::Signal(9),
            oom_kills: Some(u64::from(hogged)),
            peak_bytes: None,
            cpu: None,
        })
    }
}

/// Marks one that ran out of memory.
const HOG: u32 = u32::MAX;

impl Node for Fake {
    fn list(&self) -> Result<Vec<Listed>, SandboxError> {
        let inner = self.inner();
        if inner.is_gone {
            return Err(nobody());
        }
        let alive = inner.alive.iter();
        Ok(alive
            .map(|(id, alive)| Listed {
                sandbox: *id,
                epoch: Epoch(1),
                function: alive.function.clone(),
                slot: SlotName(7),
                init: process(),
                adopted: false,
            })
            .collect())
    }

    fn collapse(&self, sandbox: SandboxId) -> Result<Collapsed, SandboxError> {
        self.inner().collapsed.push(sandbox);
        Ok(Collapsed::default())
    }

    fn watch(&self, hear: &mut dyn FnMut(Option<SandboxId>) -> bool) -> Result<(), SandboxError> {
        self.inner().watchers += 1;
        let end = loop {
            if self.inner().is_gone {
                break Err(nobody());
            }
            let told = self.inner().untold.pop();
            if !hear(told) {
                break Ok(());
            }
            std::thread::sleep(Duration::from_millis(1));
        };
        self.inner().watchers -= 1;
        end
    }

    fn weigh(&self, _: &str) -> Option<u64> {
        self.inner().weight
    }
}

pub(crate) struct FakeSandbox {
    id: SandboxId,
    socket: UnixStream,
    node: Fake,
}

impl AsFd for FakeSandbox {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Sandbox for FakeSandbox {
    fn id(&self) -> SandboxId {
        self.id
    }

    fn epoch(&self) -> Epoch {
        Epoch(1)
    }

    fn start(
        &mut self,
        start: &Start,
        patience: Duration,
        tell: &mut dyn FnMut(Told<'_>),
    ) -> Result<Started, SandboxError> {
        assert!(start.root.layers.iter().all(|layer| layer.is_dir()));
        if let Some(alive) = self.node.inner().alive.get_mut(&self.id) {
            alive.version = start.version;
        }
        let not_started = |why, said: &[u8]| {
            let said = said.to_vec();
            Err(SandboxError::NotStarted { why, said })
        };
        match &*start.program.command[0] {
            "/never" => not_started(NotStarted::Deadline { after: patience }, b""),
            "/dies" => not_started(NotStarted::Exited { how: Exit::Code(7) }, b""),
            "/panics" => panic!("as this test wants it"),
            "/says" => {
                let kind = "My.InitError".to_owned();
                not_started(
                    NotStarted::Itself { kind },
                    b"{\"errorType\":\"My.InitError\"}",
                )
            }
            _ => {
                tell(Told::Log {
                    stream: Stream::Out,
                    bytes: b"it begins\n",
                    dropped: 0,
                });
                Ok(Started {
                    steps: vec![("root".to_owned(), 200), ("spawn".to_owned(), 900)],
                    ready_boottime_ns: 7,
                })
            }
        }
    }

    fn invoke(
        &mut self,
        work: Work<'_>,
        cancel: &Cancel,
        tell: &mut dyn FnMut(Told<'_>),
    ) -> Result<Outcome, SandboxError> {
        let failed = |kind: &str, body: &[u8]| {
            Ok(Outcome::Failed {
                kind: kind.to_owned(),
                body: body.to_vec(),
            })
        };
        match work.payload {
            b"\"wait\"" => {
                // Until the end of its time, or of the patience of who asked.
                let mut cancelled = [PollFd::new(cancel, PollFlags::IN)];
                let left = Timespec::try_from(work.left).expect("a time");
                match poll(&mut cancelled, Some(&left)).expect("poll") {
                    0 => failed(fault::TIMED_OUT, b""),
                    _ => failed(fault::CANCELLED, b""),
                }
            }
            b"\"hold\"" => {
                // Until somebody lets go.
                let short = Timespec::try_from(Duration::from_millis(1)).expect("a time");
                while self.node.inner().holds {
                    let mut cancelled = [PollFd::new(cancel, PollFlags::IN)];
                    if poll(&mut cancelled, Some(&short)).expect("poll") > 0 {
                        return failed(fault::CANCELLED, b"");
                    }
                }
                Ok(Outcome::Answered(b"\"held\"".to_vec()))
            }
            b"\"stay\"" => {
                // Whatever is asked of it.
                while self.node.inner().holds {
                    std::thread::sleep(Duration::from_millis(1));
                }
                failed(fault::CANCELLED, b"")
            }
            b"\"panic\"" => panic!("as this test wants it"),
            b"\"fail\"" => failed(
                "My.Error",
                b"{\"errorType\":\"My.Error\",\"errorMessage\":\"no\"}",
            ),
            b"\"gone\"" => Err(SandboxError::Gone),
            b"\"exit\"" => failed(fault::EXITED, b""),
            b"\"hog\"" => {
                if let Some(alive) = self.node.inner().alive.get_mut(&self.id) {
                    alive.version = HOG;
                }
                Err(SandboxError::Gone)
            }
            b"\"log\"" => {
                let calls = BTreeMap::from([("bpf".to_owned(), 3)]);
                tell(Told::Refused(&calls));
                tell(Told::Log {
                    stream: Stream::Err,
                    bytes: b"one\ntwo\n",
                    dropped: 5,
                });
                Ok(Outcome::Answered(b"null".to_vec()))
            }
            b"\"trace\"" => {
                let json = serde_json::json!({"arn": work.ask.arn, "trace": work.ask.trace});
                Ok(Outcome::Answered(json.to_string().into_bytes()))
            }
            payload => Ok(Outcome::Answered(payload.to_vec())),
        }
    }

    fn outcome(
        &mut self,
        _: RequestId,
        _: Duration,
        _: &Cancel,
        _: &mut dyn FnMut(Told<'_>),
    ) -> Result<Outcome, SandboxError> {
        Ok(Outcome::Answered(b"\"kept\"".to_vec()))
    }

    fn listen(&mut self, tell: &mut dyn FnMut(Told<'_>)) -> Result<(), SandboxError> {
        let mut byte = [0];
        match std::io::Read::read(&mut &self.socket, &mut byte) {
            Ok(0) => Err(SandboxError::Gone),
            Ok(_) => {
                tell(Told::Log {
                    stream: Stream::Out,
                    bytes: b"muttering\n",
                    dropped: 0,
                });
                Ok(())
            }
            Err(_) => Ok(()),
        }
    }
}
