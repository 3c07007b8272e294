//! Serves one sandbox: between who runs functions, on the channel, and the function, on the
//! Runtime API and its two outputs.
//!
//! One thread and one `poll`; nothing in here waits for anybody. The function is not trusted, and
//! who runs functions may be stuck, gone, or come back.

mod agent;
mod api;
mod ending;
mod environment;
mod life;
mod logs;
mod output;
mod piece;
mod refusals;
mod wait;

use std::io;
use std::net::TcpListener;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use hearth_runtime::channel::Frame;
use hearth_runtime::id::{RequestId, SandboxId};
use hearth_runtime::invoke::{Effect, Happening, Invocation, Session};
use hearth_runtime::sandbox::message::{Ask, Exit, FromSandbox, NotStarted, ToSandbox, fault};
use hearth_runtime::sandbox::start::Start;
use hearth_runtime::seccomp::Listener;

use agent::Agent;
use api::{Api, Came};
use life::{At, Late, Life, Work};
use output::Output;
use piece::Piece;
use refusals::Refusals;
use rustix::time::{ClockId, clock_gettime};
use wait::Source;

/// How often to read until the largest message is whole.
const WHOLE: usize = 256;

/// Where a function runs: a jail, or in a test none.
pub(crate) trait Ground {
    /// Makes it, and starts the function in it. `outputs` is called in it: who makes a pipe owns it.
    fn launch(
        &mut self,
        start: &Start,
        environment: &[(String, String)],
        outputs: impl FnOnce() -> io::Result<(OwnedFd, OwnedFd)>,
    ) -> Result<Launched, NotStarted>;

    /// Readable when a process has ended.
    fn ended(&self) -> Option<BorrowedFd<'_>>;

    /// Takes away what has ended; how the function has, if it is among it.
    fn reap(&mut self) -> Option<Exit>;

    /// Kills all that runs in it.
    fn kill(&mut self);
}

/// A function that was started.
pub(crate) struct Launched {
    /// What was made, and how many microseconds after the beginning it was.
    pub(crate) steps: Vec<(&'static str, u64)>,
    /// Asks about calls that its list does not allow.
    pub(crate) refusals: Option<Listener>,
}

/// Where it is spoken with.
pub(crate) struct Doors {
    /// The channel.
    pub(crate) channel: UnixListener,
    /// The Runtime API.
    pub(crate) api: TcpListener,
}

/// One sandbox that was claimed.
pub(crate) struct Service<G> {
    sandbox: SandboxId,
    ground: G,
    agent: Agent,
    api: Api,
    session: Session<api::Id>,
    /// Connections that were replied to: another request of theirs may be here already.
    replied: Vec<api::Id>,
    output: Output,
    refusals: Refusals,
    /// When parts of lines and refused calls are told that no end of a request has told.
    tick: Option<Instant>,
    life: Life,
}

impl<G: Ground> Service<G> {
    pub(crate) fn new(sandbox: SandboxId, doors: Doors, ground: G) -> io::Result<Self> {
        Ok(Self {
            sandbox,
            ground,
            agent: Agent::new(doors.channel)?,
            api: Api::new(doors.api)?,
            session: Session::new(),
            replied: Vec::new(),
            output: Output::default(),
            refusals: Refusals::default(),
            tick: None,
            life: Life::claimed(Instant::now()),
        })
    }

    /// Until all is over and told.
    pub(crate) fn run(mut self) -> io::Result<()> {
        while !self.life.is_done(Instant::now(), self.connected()) {
            for source in self.wait()? {
                self.on(source);
            }
            self.on_time(Instant::now());
            self.send_logs();
        }
        Ok(())
    }

    fn on(&mut self, source: Source) {
        match source {
            Source::Callers => {
                // What was said by who is replaced now was said.
                self.listen(WHOLE);
                if self.agent.accept() {
                    self.greet();
                }
            }
            Source::Agent => {
                self.agent.flush();
                self.listen(1);
            }
            Source::Clients => self.api.accept(),
            Source::Client(id) => self.serve(id, 1),
            Source::Output(stream) => self.output.read(stream, self.life.request()),
            Source::Refusal => self.refusals.refuse(),
            Source::NoRefusals => self.refusals.close(),
            Source::Ended => {
                if let Some(how) = self.ground.reap() {
                    self.exited(how);
                }
            }
        }
    }

    /// Reads at most so many times what who is connected says.
    fn listen(&mut self, times: usize) {
        for frame in self.agent.read(times) {
            self.asked(frame);
        }
    }

    /// Somebody has connected.
    fn greet(&mut self) {
        let hello = FromSandbox::Hello {
            state: self.life.state(),
            function: self.life.function.clone(),
        };
        self.agent.tell(Piece::new(hello, None, Vec::new()));
        self.send_all_logs();
        for piece in self.life.untold() {
            self.agent.tell(piece.clone());
        }
    }

    fn asked(&mut self, frame: Frame<ToSandbox>) {
        match (frame.message, frame.request, frame.left) {
            (ToSandbox::Start(start), _, Some(left))
                if matches!(self.life.at, At::Parked { .. }) =>
            {
                self.start(&start, left);
            }
            (ToSandbox::Invoke(ask), Some(request), Some(left)) => {
                self.invoke(ask, request, left, frame.body);
            }
            (ToSandbox::Cancel, Some(request), _) => {
                if self.life.request() == Some(request) {
                    self.give_up(fault::CANCELLED, "it was cancelled");
                }
            }
            (ToSandbox::Taken, Some(request), _) => self.life.taken(request),
            _ => {
                eprintln!(
                    "hearth-init: a connection is closed: it sent a second start, or left out the \
                     request or the time left"
                );
                self.agent.close();
            }
        }
    }

    fn start(&mut self, start: &Start, left: Duration) {
        self.life.function = Some((start.function.clone(), start.version));
        self.life.at = At::Starting {
            after: left,
            until: Instant::now() + left,
        };
        match self.launch(start) {
            Ok(launched) => {
                self.refusals.listen(launched.refusals);
                let steps = launched.steps.into_iter();
                let steps = steps.map(|(step, after)| (step.to_owned(), after));
                self.tell(FromSandbox::Spawned {
                    steps: steps.collect(),
                });
            }
            Err(why) => self.not_started(why, Vec::new()),
        }
    }

    fn launch(&mut self, start: &Start) -> Result<Launched, NotStarted> {
        let api = self.api.address().map_err(|error| NotStarted::Sandbox {
            step: "reading the address of its Runtime API".to_owned(),
            error: error.to_string(),
        })?;
        let environment = environment::of(start, self.sandbox, api);
        let outputs = || self.output.open();
        self.ground.launch(start, &environment, outputs)
    }

    fn invoke(&mut self, ask: Ask, request: RequestId, left: Duration, payload: Vec<u8>) {
        if let Some(why) = self.life.busy() {
            return self.refuse(request, &why);
        }
        // What it has written until now is not of this request.
        self.output.drain(None);
        let invocation = Invocation {
            request,
            arn: ask.arn,
            left,
            trace: ask.trace,
            client_context: ask.client_context,
            identity: ask.identity,
            payload,
        };
        match self.session.invoke(invocation) {
            Ok(effects) => {
                self.life.at = At::Work(Work {
                    request,
                    after: left,
                    until: Instant::now() + left,
                });
                self.follow(effects);
            }
            Err(refused) => self.refuse(request, &refused.to_string()),
        }
        self.serve_replied();
    }

    /// Reads at most so many chunks from a connection of the function.
    fn serve(&mut self, id: api::Id, chunks: usize) {
        let came = self.api.serve(id, chunks);
        self.came(came);
        self.serve_replied();
    }

    fn serve_replied(&mut self) {
        while let Some(id) = self.replied.pop() {
            let came = self.api.serve(id, 0);
            self.came(came);
        }
    }

    fn came(&mut self, came: Option<Came>) {
        match came {
            Some(Came::Request(id, request)) => {
                let effects = self.session.call(id, request);
                self.follow(effects);
            }
            Some(Came::Closed(id)) => self.session.closed(id),
            None => {}
        }
    }

    fn follow(&mut self, effects: Vec<Effect<api::Id>>) {
        for effect in effects {
            match effect {
                Effect::Reply(id, reply) => {
                    self.api.reply(id, &reply);
                    self.replied.push(id);
                }
                Effect::Tell(happening) => self.happened(happening),
            }
        }
    }

    fn happened(&mut self, happening: Happening) {
        match happening {
            Happening::Ready => {
                self.output.drain(None);
                self.send_all_logs();
                self.life.at = At::Ready;
                let now = clock_gettime(ClockId::Boottime);
                let [seconds, nanos] =
                    [now.tv_sec, now.tv_nsec].map(|part| u64::try_from(part).unwrap_or(0));
                self.tell(FromSandbox::Ready {
                    boottime_ns: seconds * 1_000_000_000 + nanos,
                });
            }
            Happening::Answered { body, .. } => self.conclude(FromSandbox::Answered, body),
            Happening::Failed { kind, body, .. } => {
                self.conclude(FromSandbox::Failed { kind }, body);
            }
            // A sandbox of processes has no snapshots: it goes on at once.
            Happening::Restorable => {
                let restored = self.session.restored();
                self.follow(restored.into_iter().collect());
            }
            Happening::InitFailed { kind, body } | Happening::RestoreFailed { kind, body } => {
                // The reply goes out first: a function that reads it ends as it means to.
                self.serve_replied();
                self.not_started(NotStarted::Itself { kind }, body);
            }
        }
    }

    fn on_time(&mut self, now: Instant) {
        match self.life.late(now) {
            Some(Late::Start(after)) => {
                self.not_started(NotStarted::Deadline { after }, Vec::new());
            }
            Some(Late::Work(after)) => {
                let why = format!("it had not answered after {:.2} s", after.as_secs_f64());
                self.give_up(fault::TIMED_OUT, &why);
            }
            None => {}
        }
        self.on_tick(now);
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests;
