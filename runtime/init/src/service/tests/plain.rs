//! No jail: a plain process of this machine, and who runs functions beside it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::JoinHandle;

use hearth_runtime::channel::Connection;
use hearth_runtime::sandbox::message::{State, Stream};
use hearth_runtime::sandbox::start::{HugePages, Network, Program, Root};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, kill_process_group, pidfd_open,
    pidfd_send_signal, waitid,
};

use super::super::*;

pub(super) const LONG: Duration = Duration::from_secs(20);

/// Starts a function as a process group.
struct Plain {
    function: Option<(Pid, OwnedFd)>,
    reaped: bool,
    /// The function, to whoever runs the test.
    told: Sender<OwnedFd>,
}

impl Ground for Plain {
    fn launch(
        &mut self,
        start: &Start,
        environment: &[(String, String)],
        outputs: impl FnOnce() -> io::Result<(OwnedFd, OwnedFd)>,
    ) -> Result<Launched, NotStarted> {
        use std::os::unix::process::CommandExt as _;
        let (out, err) = outputs().unwrap();
        let (program, arguments) = start.program.command.split_first().unwrap();
        let child = Command::new(program)
            .args(arguments)
            .envs(environment.iter().cloned())
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .process_group(0)
            .spawn()
            .map_err(|error| NotStarted::Program {
                command: program.clone(),
                error: error.to_string(),
            })?;
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
        let pidfd = || pidfd_open(pid, PidfdFlags::empty()).unwrap();
        let _ = self.told.send(pidfd());
        self.function = Some((pid, pidfd()));
        Ok(Launched {
            steps: vec![("spawn", 1)],
            refusals: None,
        })
    }

    fn ended(&self) -> Option<BorrowedFd<'_>> {
        let function = self.function.as_ref().filter(|_| !self.reaped);
        function.map(|(_, pidfd)| pidfd.as_fd())
    }

    fn reap(&mut self) -> Option<Exit> {
        let (_, pidfd) = self.function.as_ref()?;
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        let status = waitid(WaitId::PidFd(pidfd.as_fd()), options).unwrap()?;
        self.reaped = true;
        let code = status.exit_status().map(Exit::Code);
        code.or(status.terminating_signal().map(Exit::Signal))
    }

    fn kill(&mut self) {
        if let Some((pid, _)) = &self.function {
            let _ = kill_process_group(*pid, Signal::KILL);
        }
    }
}

impl Drop for Plain {
    fn drop(&mut self) {
        // As the end of the first process would.
        self.kill();
        if let Some((_, pidfd)) = self.function.as_ref().filter(|_| !self.reaped) {
            let _ = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED);
        }
    }
}

/// A service that runs.
pub(super) struct Served {
    directory: tempfile::TempDir,
    thread: Option<JoinHandle<io::Result<()>>>,
    function: Receiver<OwnedFd>,
}

impl Served {
    pub(super) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let channel = UnixListener::bind(directory.path().join("sock")).unwrap();
        let api = TcpListener::bind("127.0.0.1:0").unwrap();
        let doors = Doors { channel, api };
        let (told, function) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let sandbox = "0123456789abcdef".parse().unwrap();
            let ground = Plain {
                function: None,
                reaped: false,
                told,
            };
            Service::new(sandbox, doors, ground)?.run()
        });
        Self {
            directory,
            thread: Some(thread),
            function,
        }
    }

    /// Somebody connects; where the sandbox is.
    pub(super) fn connect(&self) -> (Caller, State) {
        let socket = std::os::unix::net::UnixStream::connect(self.directory.path().join("sock"));
        let mut caller = Caller(Connection::new(socket.unwrap()).unwrap());
        let FromSandbox::Hello { state, .. } = caller.next().message else {
            panic!("the first is no hello");
        };
        (caller, state)
    }

    /// Somebody who connects when the sandbox is there.
    pub(super) fn until(&self, wanted: State) -> Caller {
        for _ in 0..100 {
            let (caller, state) = self.connect();
            if state == wanted {
                return caller;
            }
            drop(caller);
            std::thread::sleep(Duration::from_millis(200));
        }
        panic!("never {wanted:?}");
    }

    /// A function that is ready.
    pub(super) fn ready(program: &str) -> (Self, Caller) {
        let served = Self::new();
        let (mut caller, state) = served.connect();
        assert_eq!(state, State::Parked);
        caller.start(&python(program), LONG);
        assert!(matches!(caller.next().message, FromSandbox::Spawned { .. }));
        assert!(matches!(caller.next().message, FromSandbox::Ready { .. }));
        (served, caller)
    }

    /// It has ended, as it should.
    pub(super) fn ended(mut self) {
        let thread = self.thread.take().unwrap();
        thread.join().unwrap().unwrap();
    }
}

impl Drop for Served {
    /// No function outlives its test.
    fn drop(&mut self) {
        for function in self.function.try_iter() {
            let _ = pidfd_send_signal(function, Signal::KILL);
        }
    }
}

/// Who runs functions.
pub(super) struct Caller(pub(super) Connection<ToSandbox, FromSandbox>);

impl Caller {
    pub(super) fn next(&mut self) -> Frame<FromSandbox> {
        self.0.receive(LONG).unwrap().unwrap()
    }

    /// Nothing more is told.
    pub(super) fn end(mut self) {
        assert_eq!(self.0.receive(LONG).unwrap(), None);
    }

    pub(super) fn say(
        &mut self,
        message: ToSandbox,
        request: Option<u128>,
        left: Option<Duration>,
        body: &[u8],
    ) {
        let frame = Frame {
            request: request.map(RequestId::from_u128),
            left,
            body: body.to_vec(),
            ..Frame::new(piece::EPOCH, message)
        };
        self.0.send(&frame, LONG).unwrap();
    }

    pub(super) fn start(&mut self, start: &Start, left: Duration) {
        self.say(
            ToSandbox::Start(Box::new(start.clone())),
            None,
            Some(left),
            b"",
        );
    }

    pub(super) fn invoke(&mut self, request: u128, left: Duration, payload: &[u8]) {
        let ask = Ask {
            arn: "arn:hearth:function:f".into(),
            ..Ask::default()
        };
        self.say(ToSandbox::Invoke(ask), Some(request), Some(left), payload);
    }

    pub(super) fn taken(&mut self, request: u128) {
        self.say(ToSandbox::Taken, Some(request), None, b"");
    }

    /// The next that is no log; what was logged before it, and how much was dropped.
    pub(super) fn after_logs(&mut self) -> (Frame<FromSandbox>, Logged) {
        let mut logged = Logged::default();
        loop {
            let frame = self.next();
            let FromSandbox::Log { stream, dropped } = frame.message else {
                return (frame, logged);
            };
            let text = String::from_utf8(frame.body).unwrap();
            match stream {
                Stream::Out => logged.out += &text,
                Stream::Err => logged.err += &text,
            }
            logged.dropped += dropped;
            logged.requests.push(frame.request);
        }
    }

    /// The outcome of a request is an answer with this body.
    pub(super) fn answered(&mut self, request: u128, body: &[u8]) -> Logged {
        let (frame, logged) = self.after_logs();
        assert_eq!(frame.message, FromSandbox::Answered, "{logged:?}");
        assert_eq!(frame.request, Some(RequestId::from_u128(request)));
        assert_eq!(
            String::from_utf8_lossy(&frame.body),
            String::from_utf8_lossy(body)
        );
        logged
    }

    /// The outcome of a request is a failure of this kind; what was said of it.
    pub(super) fn failed(&mut self, request: u128, kind: &str) -> String {
        let (frame, _) = self.after_logs();
        assert_eq!(frame.message, FromSandbox::Failed { kind: kind.into() });
        assert_eq!(frame.request, Some(RequestId::from_u128(request)));
        String::from_utf8(frame.body).unwrap()
    }

    /// It did not start; why, what was said of it, and what was logged before.
    pub(super) fn not_started(&mut self) -> (NotStarted, String, Logged) {
        let (frame, logged) = self.after_logs();
        let FromSandbox::NotStarted { why } = frame.message else {
            panic!("{frame:?}");
        };
        (why, String::from_utf8(frame.body).unwrap(), logged)
    }
}

#[derive(Debug, Default)]
pub(super) struct Logged {
    pub(super) out: String,
    pub(super) err: String,
    pub(super) dropped: u64,
    pub(super) requests: Vec<Option<RequestId>>,
}

pub(super) fn program(command: &[&str]) -> Start {
    Start {
        function: "f".parse().unwrap(),
        version: 3,
        root: Root {
            layers: vec!["/".into()],
            writable_bytes: 0,
        },
        program: Program {
            command: command.iter().map(|&word| word.into()).collect(),
            environment: vec![
                ("MINE".into(), "kept".into()),
                ("TZ".into(), "UTC+3".into()),
            ],
            directory: "/".into(),
        },
        syscalls: Vec::new(),
        open_files: 1024,
        memory_bytes: Some(128 << 20),
        huge_pages: HugePages::Node,
        network: Network::Loopback,
    }
}

/// A custom runtime: `take()` waits for work, `post(path, body)` says something.
pub(super) fn python(text: &str) -> Start {
    const RUNTIME: &str = r#"
import http.client, os, sys, time
connection = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])
def call(method, path, body=None, headers={}):
    connection.request(method, "/2018-06-01/runtime/" + path, body, headers)
    reply = connection.getresponse()
    return reply, reply.read()
def take():
    reply, body = call("GET", "invocation/next")
    return reply.headers["Lambda-Runtime-Aws-Request-Id"], body
def post(path, body, headers={}):
    return call("POST", path, body, headers)[0].status
def answer(id, body):
    return post(f"invocation/{id}/response", body)
"#;
    program(&["python3", "-c", &format!("{RUNTIME}\n{text}")])
}
