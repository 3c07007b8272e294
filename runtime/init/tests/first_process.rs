//! The program itself, as the first process of new namespaces, as root: from its parking to its end.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command};
use std::time::Duration;

use hearth_runtime::channel::{Connection, Frame};
use hearth_runtime::id::{Epoch, RequestId};
use hearth_runtime::sandbox::message::{Ask, Exit, FromSandbox, State, ToSandbox, fault};
use hearth_runtime::sandbox::start::{HugePages, Network, Program, Root, Start};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::{Pid, Signal, kill_process};

const LONG: Duration = Duration::from_secs(30);

/// A runtime of busybox: answers with what the command says.
const RUNTIME: &str = r#"
api="http://$AWS_LAMBDA_RUNTIME_API/2018-06-01/runtime/invocation"
while true; do
    wget -S -q -O - "$api/next" > /tmp/work 2> /tmp/head
    id=$(sed -n 's/^ *Lambda-Runtime-Aws-Request-Id: \([-0-9a-f]*\).*/\1/p' /tmp/head)
    said=$(COMMAND)
    wget -q -O /dev/null --post-data "$said" "$api/$id/response"
done
"#;

/// What the spawner has of one.
struct Parked {
    process: Child,
    control: UnixStream,
    directory: tempfile::TempDir,
}

impl Parked {
    fn new(uid: u32) -> Self {
        let directory = tempfile::tempdir().unwrap();
        layer(&directory.path().join("layer"));
        let listener = UnixListener::bind(directory.path().join("sock")).unwrap();
        let (control, theirs) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .unwrap();
        let mut command = Command::new("unshare");
        command
            .args([
                "--pid",
                "--mount",
                "--net",
                "--ipc",
                "--uts",
                "--fork",
                "--kill-child",
            ])
            .arg(env!("CARGO_BIN_EXE_hearth-init"))
            .args(["--sandbox", "00000000000000a1", "--uid", &uid.to_string()]);
        let given = [theirs, OwnedFd::from(listener)];
        // SAFETY: only system calls are made.
        unsafe { command.pre_exec(move || give(&given)) };
        let process = command.spawn().unwrap();
        // Its own copies of what it gave are to go.
        drop(command);
        let mut control = UnixStream::from(control);
        let mut told = [0; 1024];
        let length = control.read(&mut told).unwrap();
        let told = String::from_utf8_lossy(&told[..length]).into_owned();
        assert_eq!(told, "p");
        Self {
            process,
            control,
            directory,
        }
    }

    fn claimed(mut self) -> Claimed {
        self.control.write_all(b"c").unwrap();
        let mut claimed = Claimed {
            channel: self.connect(),
            parked: self,
        };
        let hello = claimed.next().message;
        let parked = FromSandbox::Hello {
            state: State::Parked,
            function: None,
        };
        assert_eq!(hello, parked);
        claimed
    }

    fn connect(&self) -> Connection<ToSandbox, FromSandbox> {
        let socket = UnixStream::connect(self.directory.path().join("sock")).unwrap();
        Connection::new(socket).unwrap()
    }
}

impl Drop for Parked {
    /// No sandbox outlives its test: its first process is the only child of `unshare`, which would
    /// leave it, since who becomes another user loses the tie to its parent's end.
    fn drop(&mut self) {
        let unshare = self.process.id();
        let children = fs::read_to_string(format!("/proc/{unshare}/task/{unshare}/children"));
        let child = children.unwrap_or_default().trim().parse().ok();
        if let Some(init) = child.and_then(Pid::from_raw) {
            let _ = kill_process(init, Signal::KILL);
        }
        let _ = self.process.wait();
    }
}

/// As descriptors 3 and 4, and kept over an exec.
fn give(given: &[OwnedFd; 2]) -> io::Result<()> {
    // Neither may be in the way of the other.
    for (from, to) in given.iter().zip([103, 104]) {
        // SAFETY: nobody uses these numbers in this process, which is about to be another program.
        if unsafe { libc::dup2(from.as_raw_fd(), to) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    for (from, to) in [(103, 3), (104, 4)] {
        // SAFETY: as above.
        if unsafe { libc::dup2(from, to) } < 0 || unsafe { libc::close(from) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

fn layer(path: &Path) {
    let bin = path.join("bin");
    fs::create_dir_all(&bin).unwrap();
    fs::copy("/bin/busybox", bin.join("busybox")).expect("apt install busybox-static");
    for applet in ["sh", "wget", "sed", "sleep", "ps", "mount", "setsid"] {
        std::os::unix::fs::symlink("busybox", bin.join(applet)).unwrap();
    }
}

/// What its caller has of one.
struct Claimed {
    channel: Connection<ToSandbox, FromSandbox>,
    parked: Parked,
}

impl Claimed {
    fn next(&mut self) -> Frame<FromSandbox> {
        self.channel.receive(LONG).unwrap().unwrap()
    }

    /// The next that is no log, and what was logged before it.
    fn told(&mut self) -> (FromSandbox, String, String) {
        let mut logged = String::new();
        loop {
            let frame = self.next();
            let body = String::from_utf8(frame.body).unwrap();
            match frame.message {
                FromSandbox::Log { .. } => logged += &body,
                message => return (message, body, logged),
            }
        }
    }

    fn say(&mut self, message: ToSandbox, request: Option<u128>, left: Option<Duration>) {
        let frame = Frame {
            request: request.map(RequestId::from_u128),
            left,
            ..Frame::new(Epoch(1), message)
        };
        self.channel.send(&frame, LONG).unwrap();
    }

    /// It runs a shell.
    fn start(&mut self, script: &str) {
        let start = Start {
            function: "f".parse().unwrap(),
            version: 1,
            root: Root {
                layers: vec![self.parked.directory.path().join("layer")],
                writable_bytes: 1 << 20,
            },
            program: Program {
                command: ["sh", "-c", script].map(str::to_owned).into(),
                environment: Vec::new(),
                directory: "/".into(),
            },
            syscalls: Vec::new(),
            open_files: 128,
            memory_bytes: None,
            huge_pages: HugePages::Node,
            network: Network::Loopback,
        };
        self.say(ToSandbox::Start(Box::new(start)), None, Some(LONG));
        let (told, ..) = self.told();
        let FromSandbox::Spawned { steps } = told else {
            panic!("{told:?}");
        };
        assert!(steps.iter().any(|(step, _)| step == "exec"), "{steps:?}");
    }

    /// It runs [`RUNTIME`], and is ready.
    fn serve(&mut self, command: &str) {
        self.start(&RUNTIME.replace("COMMAND", command));
        let (told, _, logged) = self.told();
        assert!(
            matches!(told, FromSandbox::Ready { .. }),
            "{told:?} {logged}"
        );
    }

    fn invoke(&mut self, request: u128, left: Duration) {
        self.say(ToSandbox::Invoke(Ask::default()), Some(request), Some(left));
    }

    /// Nothing more is told, and it has ended as it should.
    fn ends(mut self) {
        assert_eq!(self.channel.receive(LONG).unwrap(), None);
        assert_eq!(self.parked.process.wait().unwrap().code(), Some(0));
    }
}

#[test]
fn parked_without_a_spawner_it_ends() {
    let mut parked = Parked::new(0x6100_0000);
    parked.control.shutdown(std::net::Shutdown::Both).unwrap();
    assert_eq!(parked.process.wait().unwrap().code(), Some(0));
}

#[test]
fn a_function_in_a_jail_answers_and_a_later_end_of_the_spawner_is_nothing_to_it() {
    let mut claimed = Parked::new(0x6100_0002).claimed();
    claimed.serve("echo one; (sleep 0.01 &); ps");
    let control = &claimed.parked.control;
    control.shutdown(std::net::Shutdown::Both).unwrap();
    for request in 1..4 {
        claimed.invoke(request, LONG);
        let (told, body, _) = claimed.told();
        assert_eq!(told, FromSandbox::Answered, "{body}");
        assert!(body.starts_with("one\n"), "{body}");
        // Those whose parents have ended are not left as zombies: there would be more each time.
        assert!(body.matches("[sleep]").count() < 2, "{body}");
        claimed.say(ToSandbox::Taken, Some(request), None);
    }
}

#[test]
fn calls_that_were_refused_are_told_before_the_end_of_the_request() {
    let mut claimed = Parked::new(0x6100_0004).claimed();
    claimed.serve("mount -t tmpfs none /tmp; echo $?");
    claimed.invoke(1, LONG);
    let (told, ..) = claimed.told();
    let FromSandbox::Refused { calls } = told else {
        panic!("{told:?}");
    };
    assert!(calls.contains_key("mount"), "{calls:?}");
    assert_eq!(claimed.told().0, FromSandbox::Answered);
}

#[test]
fn the_end_of_a_request_that_takes_too_long_is_the_end_of_every_process() {
    let mut claimed = Parked::new(0x6100_0006).claimed();
    claimed.serve("setsid sleep 4711 & setsid sleep 4711 & sleep 4711");
    claimed.invoke(1, Duration::from_millis(500));
    let (told, ..) = claimed.told();
    let kind = fault::TIMED_OUT.to_owned();
    assert_eq!(told, FromSandbox::Failed { kind });
    claimed.say(ToSandbox::Taken, Some(1), None);
    claimed.ends();
    let alive = fs::read_dir("/proc").unwrap().flatten().filter(|entry| {
        fs::read(entry.path().join("cmdline")).is_ok_and(|line| line == b"sleep\x004711\0")
    });
    assert_eq!(alive.count(), 0);
}

#[test]
fn its_outputs_can_be_opened_anew_and_its_end_is_told() {
    let mut claimed = Parked::new(0x6100_0008).claimed();
    claimed.start("echo out > /dev/stdout; echo err > /dev/stderr; exit 9");
    let (told, _, logged) = claimed.told();
    let FromSandbox::NotStarted { why } = told else {
        panic!("{told:?}");
    };
    let how = Exit::Code(9).to_string();
    assert!(why.to_string().contains(&how), "{why}");
    assert!(
        logged.contains("out\n") && logged.contains("err\n"),
        "{logged}"
    );
    claimed.ends();
}
