//! One real sandbox: its first process is forked from the test, and does what `hearth-init` does.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, BufRead as _, BufReader, PipeReader, Read as _};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd, RawFd};
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use hearth_runtime::sandbox::message::NotStarted;
use hearth_runtime::sandbox::start::{HugePages, Network, Program, Root, Start};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions, kill_process, pidfd_open, waitpid};
use rustix::thread::UnshareFlags;

use super::super::prepare;

const NEW: UnshareFlags = UnshareFlags::NEWPID
    .union(UnshareFlags::NEWNS)
    .union(UnshareFlags::NEWNET)
    .union(UnshareFlags::NEWIPC)
    .union(UnshareFlags::NEWUTS);

/// Names that the layer has for busybox.
const APPLETS: &[&str] = &[
    "sh", "cat", "ls", "id", "dd", "stat", "sleep", "mount", "mkdir", "ln", "readlink", "hostname",
    "touch", "rm", "chmod", "ps", "kill", "wc", "sort", "find", "head", "echo", "df", "ip", "true",
    "unshare", "chroot", "ping", "dmesg",
];

/// A directory with a static shell in it.
pub(super) fn layer() -> tempfile::TempDir {
    let layer = tempfile::tempdir().unwrap();
    let bin = layer.path().join("bin");
    fs::create_dir(&bin).unwrap();
    fs::copy("/bin/busybox", bin.join("busybox")).expect("apt install busybox-static");
    for applet in APPLETS {
        std::os::unix::fs::symlink("busybox", bin.join(applet)).unwrap();
    }
    layer
}

/// Runs a command with these layers.
pub(super) fn start(layers: &[&Path], command: &[&str]) -> Start {
    Start {
        function: "a-function".parse().unwrap(),
        version: 1,
        root: Root {
            layers: layers.iter().map(Into::into).collect(),
            writable_bytes: 1 << 20,
        },
        program: Program {
            command: command.iter().map(ToString::to_string).collect(),
            environment: Vec::new(),
            directory: "/".into(),
        },
        syscalls: Vec::new(),
        open_files: 128,
        memory_bytes: None,
        huge_pages: HugePages::Node,
        network: Network::Loopback,
    }
}

/// Runs a script with a shell.
pub(super) fn script(layer: &Path, script: &str) -> Start {
    start(&[layer], &["/bin/sh", "-c", script])
}

/// A sandbox whose function runs.
pub(super) struct Running {
    /// Its first process, as the node sees it.
    pub(super) init: u32,
    /// The function's user.
    pub(super) user: u32,
    pub(super) steps: String,
    middle: Pid,
    report: BufReader<PipeReader>,
    out: PipeReader,
    err: PipeReader,
}

/// How it was.
pub(super) struct Outcome {
    pub(super) code: String,
    pub(super) out: String,
    pub(super) err: String,
    pub(super) refused: BTreeMap<String, u64>,
}

/// Why nothing runs: a fault, or what the function's owner is told.
pub(super) type Why = String;

/// Starts a function in a new sandbox.
pub(super) fn spawn(start: &Start) -> Result<Running, Why> {
    spawn_where(start, || {})
}

/// Where the node is as `node` makes it for the sandbox's first process.
pub(super) fn spawn_where(start: &Start, node: fn()) -> Result<Running, Why> {
    static NEXT: AtomicU32 = AtomicU32::new(0x7000_0000);
    let user = NEXT.fetch_add(2, Ordering::Relaxed) + std::process::id() * 64;
    let (report, tell) = io::pipe().unwrap();
    let (out, out_in) = io::pipe().unwrap();
    let (err, err_in) = io::pipe().unwrap();
    // SAFETY: the C library takes care of its locks; the child uses nothing else of other threads.
    let middle = unsafe { libc::fork() };
    if middle == 0 {
        close_others(&[tell.as_raw_fd(), out_in.as_raw_fd(), err_in.as_raw_fd()]);
        be_middle(start, node, user, tell, (out_in.into(), err_in.into()));
    }
    drop((tell, out_in, err_in));
    let mut running = Running {
        init: 0,
        user: user + 1,
        steps: String::new(),
        middle: Pid::from_raw(middle).unwrap(),
        report: BufReader::new(report),
        out,
        err,
    };
    let line = running.line().expect("its first process");
    running.init = line.strip_prefix("init ").expect(&line).parse().unwrap();
    let line = running.line().unwrap_or_else(|| "it is gone".into());
    match line.strip_prefix("spawned ") {
        Some(steps) => {
            steps.clone_into(&mut running.steps);
            Ok(running)
        }
        None => Err(line),
    }
}

/// Starts it, and waits for its end.
pub(super) fn run(start: &Start) -> Outcome {
    spawn(start).expect("it starts").wait()
}

impl Running {
    fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        self.report.read_line(&mut line).unwrap();
        line.strip_suffix('\n').map(str::to_owned)
    }

    /// The first line that it writes.
    pub(super) fn says(&mut self) -> String {
        let mut line = Vec::new();
        let mut byte = [0];
        while self.out.read(&mut byte).unwrap() == 1 && byte != *b"\n" {
            line.extend(byte);
        }
        String::from_utf8(line).unwrap()
    }

    /// The function's first process, as the node sees it.
    pub(super) fn function(&self) -> u32 {
        let init = format!("PPid:\t{}\n", self.init);
        let processes = fs::read_dir("/proc").unwrap().flatten();
        let mut numbers = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let child = |pid: &u32| {
            fs::read_to_string(format!("/proc/{pid}/status")).is_ok_and(|s| s.contains(&init))
        };
        numbers.find(child).expect("a child of its first process")
    }

    pub(super) fn wait(mut self) -> Outcome {
        let mut outcome = Outcome {
            code: String::new(),
            out: String::new(),
            err: String::new(),
            refused: BTreeMap::new(),
        };
        while let Some(line) = self.line() {
            match line.split_once(' ') {
                Some(("refused", call)) => *outcome.refused.entry(call.into()).or_default() += 1,
                Some(("exited", code)) => code.clone_into(&mut outcome.code),
                _ => panic!("{line}"),
            }
        }
        self.out.read_to_string(&mut outcome.out).unwrap();
        self.err.read_to_string(&mut outcome.err).unwrap();
        outcome
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(init) = Pid::from_raw(self.init.cast_signed()) {
            // Nobody has waited for it yet: the one in between is waited for below.
            let _ = kill_process(init, Signal::KILL);
        }
        waitpid(Some(self.middle), WaitOptions::empty()).unwrap();
    }
}

/// What other tests hold must not stay open here.
fn close_others(keep: &[RawFd]) {
    let mut keep = keep.to_vec();
    keep.sort_unstable();
    let mut from = 3;
    for descriptor in keep.into_iter().chain([RawFd::MAX]) {
        if from < descriptor {
            // SAFETY: this process uses none of these.
            unsafe { libc::close_range(from.cast_unsigned(), descriptor.cast_unsigned() - 1, 0) };
        }
        from = descriptor.saturating_add(1);
    }
}

fn be_middle(
    start: &Start,
    node: fn(),
    user: u32,
    mut tell: io::PipeWriter,
    outputs: (OwnedFd, OwnedFd),
) -> ! {
    // SAFETY: this process has one thread.
    let init = unsafe {
        rustix::thread::unshare_unsafe(NEW).expect("root");
        libc::fork()
    };
    if init == 0 {
        node();
        let code = be_init(start, user, &mut tell, outputs);
        // SAFETY: ends this process without what its parent wants done at its own end.
        unsafe { libc::_exit(code) }
    }
    drop(outputs);
    let _ = waitpid(Pid::from_raw(init), WaitOptions::empty());
    // SAFETY: as above.
    unsafe { libc::_exit(0) }
}

fn be_init(
    start: &Start,
    user: u32,
    tell: &mut impl io::Write,
    (out, err): (OwnedFd, OwnedFd),
) -> i32 {
    // The number that the node has for it; the sandbox has another /proc.
    let own = fs::read_link("/proc/self").unwrap();
    let _ = writeln!(tell, "init {}", own.display());
    let entered = prepare(user, None).and_then(|prepared| prepared.enter(start, "a-host"));
    let jail = match entered {
        Ok(jail) => jail,
        Err(fault) => {
            let _ = writeln!(tell, "fault: {fault}");
            return 1;
        }
    };
    let environment = &start.program.environment;
    let (mut from_out, out_in) = io::pipe().unwrap();
    let (mut from_err, err_in) = io::pipe().unwrap();
    let function = match jail.spawn(start, environment, out_in.into(), err_in.into()) {
        Ok(function) => function,
        Err(why) => {
            let kind = match why {
                NotStarted::Program { .. } => "program",
                _ => "sandbox",
            };
            let _ = writeln!(tell, "{kind}: {why}");
            return 1;
        }
    };
    let _ = writeln!(tell, "spawned {:?}", function.steps);
    let pidfd = pidfd_open(function.pid, PidfdFlags::empty()).unwrap();
    let listener = function.refusals.as_fd();
    loop {
        let mut watched = [
            PollFd::new(&from_out, PollFlags::IN),
            PollFd::new(&from_err, PollFlags::IN),
            PollFd::new(&listener, PollFlags::IN),
            PollFd::new(&pidfd, PollFlags::IN),
        ];
        poll(&mut watched, None).unwrap();
        let is_ready = watched.map(|one| one.revents().contains(PollFlags::IN));
        let [from_out_is_ready, from_err_is_ready, refused, ended] = is_ready;
        if from_out_is_ready {
            pump(&mut from_out, &out);
        } else if from_err_is_ready {
            pump(&mut from_err, &err);
        } else if refused {
            if let Some(refusal) = function.refusals.refuse().unwrap() {
                let _ = writeln!(tell, "refused {}", refusal.name().unwrap());
            }
        } else if ended {
            let status = waitpid(Some(function.pid), WaitOptions::empty()).unwrap();
            let (_, status) = status.unwrap();
            let code = status.exit_status().or(status.terminating_signal());
            let _ = writeln!(tell, "exited {}", code.unwrap());
            return 0;
        }
    }
}

/// Where the function's own pipes end, which `hearth-init` has made.
fn pump(from: &mut PipeReader, to: &OwnedFd) {
    let mut bytes = [0; 4096];
    let read = from.read(&mut bytes).unwrap();
    let _ = rustix::io::write(to, &bytes[..read]);
}
