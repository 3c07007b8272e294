//! Real programs under the filter: what they need works, what reaches out is refused and told.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use hearth_runtime::seccomp::{Filter, Listener, Profile};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

/// How often each call was refused, by name.
type Refused = BTreeMap<String, u64>;

/// Runs a command under `profile` to its end.
fn run(command: &mut Command, profile: &Profile) -> (Output, Refused) {
    let filter = Filter::new(profile).expect("a filter");
    let (ours, theirs) = UnixStream::pair().expect("a pair of sockets");
    let socket = OwnedFd::from(theirs);
    let child_socket = socket.try_clone().expect("a copy");
    let install = move || {
        let listener = OwnedFd::from(filter.install()?);
        send(&child_socket, &listener)
    };
    // SAFETY: between fork and exec it makes system calls and allocates nothing.
    unsafe { command.pre_exec(install) };
    let child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    drop(socket);
    // The hook holds a copy of the socket for as long as there is the command.
    let refused = std::thread::spawn(move || refuse_all(&receive(&ours)));
    let output = child.wait_with_output().expect("it ends");
    (output, refused.join().expect("a listener"))
}

fn send(socket: &OwnedFd, listener: &OwnedFd) -> io::Result<()> {
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut message = SendAncillaryBuffer::new(&mut space);
    let listener = [listener.as_fd()];
    message.push(SendAncillaryMessage::ScmRights(&listener));
    sendmsg(
        socket,
        &[io::IoSlice::new(b"l")],
        &mut message,
        SendFlags::NOSIGNAL,
    )?;
    Ok(())
}

fn receive(socket: &UnixStream) -> Listener {
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut message = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let mut place = [io::IoSliceMut::new(&mut byte)];
    recvmsg(socket, &mut place, &mut message, RecvFlags::CMSG_CLOEXEC).expect("a message");
    let fds = message.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    fds.expect("a descriptor").into()
}

/// Refuses until nobody is left under the filter.
fn refuse_all(listener: &Listener) -> Refused {
    let mut refused = Refused::new();
    loop {
        let mut ready = [PollFd::new(listener, PollFlags::IN)];
        let timeout = Timespec::try_from(Duration::from_mins(1)).expect("a time");
        poll(&mut ready, Some(&timeout)).expect("poll");
        let events = ready[0].revents();
        if events.contains(PollFlags::IN) {
            if let Some(refusal) = listener.refuse().expect("the listener") {
                let name = refusal.name().unwrap_or("unknown").to_owned();
                *refused.entry(name).or_default() += 1;
            }
        } else {
            assert!(events.contains(PollFlags::HUP), "nothing for a minute");
            return refused;
        }
    }
}

/// Python that makes one call and prints what became of it.
fn call(script: &str, profile: &Profile) -> (String, Refused) {
    let prelude = "import ctypes, errno, os\n\
        libc = ctypes.CDLL(None, use_errno=True)\n\
        def call(*arguments):\n\
        \x20   libc.syscall.restype = ctypes.c_long\n\
        \x20   answer = libc.syscall(*[ctypes.c_long(each) for each in arguments])\n\
        \x20   error = ctypes.get_errno()\n\
        \x20   print(errno.errorcode[error] if answer == -1 else 'allowed')\n";
    let mut python = Command::new("python3");
    python.arg("-c").arg(format!("{prelude}{script}"));
    let (output, refused) = run(&mut python, profile);
    let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    assert!(
        output.status.success(),
        "{script}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    (said, refused)
}

#[test]
fn ordinary_programs_miss_nothing() {
    let programs: [(&str, &[&str]); 4] = [
        (
            "sh",
            &[
                "-c",
                "ls -l / | wc -l; echo $(id -u) > /dev/null; sleep 0.01 & wait",
            ],
        ),
        ("python3", &["-c", PYTHON]),
        ("bash", &["-c", "exec 3<>/dev/null; cat <(echo x)"]),
        ("cargo", &["--version"]),
    ];
    for (program, arguments) in programs {
        let (output, refused) = run(Command::new(program).args(arguments), &Profile::default());
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{program}: {said}");
        assert_eq!(refused, Refused::new(), "{program}");
    }
}

/// What functions do: threads, processes, sockets, names, files, memory, time.
const PYTHON: &str = r#"
import concurrent.futures, mmap, multiprocessing, os, select, signal, socket, subprocess, tempfile, threading, time
threads = [threading.Thread(target=time.sleep, args=(0.001,)) for _ in range(8)]
[t.start() for t in threads]; [t.join() for t in threads]
assert subprocess.check_output(["echo", "x"]) == b"x\n"
server = socket.create_server(("127.0.0.1", 0))
client = socket.create_connection(server.getsockname())
server.accept()[0].sendall(b"hello"); assert client.recv(5) == b"hello"
socket.getaddrinfo("localhost", 80); socket.socketpair()
socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
with tempfile.TemporaryDirectory() as folder:
    path = os.path.join(folder, "f"); open(path, "w").write("x" * 100000); os.rename(path, path + "2")
    os.symlink("f2", path); os.stat(path); os.listdir(folder)
mmap.mmap(-1, 1 << 20).close()
with concurrent.futures.ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("fork")) as pool:
    assert list(pool.map(abs, [-1, -2])) == [1, 2]
select.epoll(); signal.setitimer(signal.ITIMER_REAL, 0); os.sched_getaffinity(0)
os.memfd_create("x"); os.getrandom(8); os.eventfd(0); os.pidfd_open(os.getpid())
"#;

#[test]
fn what_reaches_out_is_refused_and_told_by_name() {
    let calls = [
        (libc::SYS_mount, "mount"),
        (libc::SYS_umount2, "umount2"),
        (libc::SYS_pivot_root, "pivot_root"),
        (libc::SYS_move_mount, "move_mount"),
        (libc::SYS_open_tree, "open_tree"),
        (libc::SYS_bpf, "bpf"),
        (libc::SYS_keyctl, "keyctl"),
        (libc::SYS_add_key, "add_key"),
        (libc::SYS_request_key, "request_key"),
        (libc::SYS_userfaultfd, "userfaultfd"),
        (libc::SYS_io_uring_setup, "io_uring_setup"),
        (libc::SYS_ptrace, "ptrace"),
        (libc::SYS_process_vm_readv, "process_vm_readv"),
        (libc::SYS_pidfd_getfd, "pidfd_getfd"),
        (libc::SYS_unshare, "unshare"),
        (libc::SYS_setns, "setns"),
        (libc::SYS_kexec_load, "kexec_load"),
        (libc::SYS_init_module, "init_module"),
        (libc::SYS_perf_event_open, "perf_event_open"),
        (libc::SYS_open_by_handle_at, "open_by_handle_at"),
        (libc::SYS_reboot, "reboot"),
        (libc::SYS_swapon, "swapon"),
        (libc::SYS_chroot, "chroot"),
        (libc::SYS_fanotify_init, "fanotify_init"),
    ];
    let lines = calls.map(|(number, _)| format!("call({number}, 0, 0, 0, 0, 0)"));
    let script = lines.join("\n");
    let (said, refused) = call(&script, &Profile::default());
    assert!(said.lines().all(|line| line == "EPERM"), "{said}");
    assert_eq!(said.lines().count(), calls.len());
    let told: Refused = calls
        .iter()
        .map(|(_, name)| ((*name).to_owned(), 1))
        .collect();
    assert_eq!(refused, told);
}

#[test]
fn arguments_decide_where_a_call_can_be_both() {
    let namespaces = [libc::CLONE_NEWUSER, libc::CLONE_NEWNS, libc::CLONE_NEWNET];
    let clones = namespaces.map(|namespace| {
        let flags = namespace | libc::SIGCHLD;
        format!("call({}, {flags})", libc::SYS_clone)
    });
    let sockets = [
        (libc::AF_PACKET, libc::SOCK_RAW, 0),
        (libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_ICMP),
        (
            libc::AF_INET,
            libc::SOCK_RAW | libc::SOCK_CLOEXEC,
            libc::IPPROTO_ICMP,
        ),
        (libc::AF_ALG, libc::SOCK_SEQPACKET, 0),
        (libc::AF_VSOCK, libc::SOCK_STREAM, 0),
        (libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_AUDIT),
    ]
    .map(|(family, kind, protocol)| {
        let socket = libc::SYS_socket;
        format!("call({socket}, {family}, {kind}, {protocol})")
    });
    // The kernel does not look at the upper half, so that it must not make a difference.
    let ioctls = [libc::TIOCSTI, libc::TIOCSTI | 1 << 32, libc::TIOCLINUX]
        .map(|request| format!("call({}, 0, {request}, 0)", libc::SYS_ioctl));
    let personality = [format!("call({}, 0x40000)", libc::SYS_personality)];
    let script = [&clones[..], &sockets[..], &ioctls[..], &personality[..]].concat();
    let (said, refused) = call(&script.join("\n"), &Profile::default());
    assert!(said.lines().all(|line| line == "EPERM"), "{said}");
    let told = [
        ("clone", 3),
        ("ioctl", 3),
        ("personality", 1),
        ("socket", 6),
    ];
    assert_eq!(
        refused,
        told.map(|(name, times)| (name.to_owned(), times)).into()
    );
}

#[test]
fn what_is_newer_than_the_list_is_not_there() {
    let script = format!("call({}, 0, 0)\ncall(4000)\n", libc::SYS_clone3);
    let (said, refused) = call(&script, &Profile::default());
    assert_eq!(said, "ENOSYS\nENOSYS");
    assert_eq!(refused, Refused::from([("unknown".into(), 1)]));
}

#[test]
fn a_function_may_have_more_and_never_takes_the_filter_off() {
    let mut profile = Profile::default();
    profile
        .add("userfaultfd")
        .expect("a call that may be added");
    // Flags that no kernel knows: it was reached.
    let script = format!(
        "call({}, 0x7fffff)\npid = os.fork()\n\
         if pid == 0: call({}, 0, 0, 0, 0, 0)\nelse: os.waitpid(pid, 0)\n",
        libc::SYS_userfaultfd,
        libc::SYS_mount,
    );
    let (said, refused) = call(&script, &profile);
    // Whichever of the two processes had something to print still prints it.
    let lines: Vec<&str> = said.lines().collect();
    assert!(
        lines.contains(&"EINVAL") && lines.contains(&"EPERM"),
        "{said}"
    );
    assert_eq!(refused, Refused::from([("mount".into(), 1)]));
}

#[test]
fn a_listener_that_is_gone_leaves_nobody_waiting() {
    let filter = Filter::new(&Profile::default()).expect("a filter");
    let mut python = Command::new("python3");
    python
        .arg("-c")
        .arg("import os\ntry: os.chroot('/')\nexcept OSError as e: print(e.errno)");
    // SAFETY: between fork and exec it makes system calls and allocates nothing.
    unsafe {
        python.pre_exec(move || {
            let listener = OwnedFd::from(filter.install()?);
            // Closed at exec.
            assert!(listener.as_raw_fd() > 2);
            std::mem::forget(listener);
            Ok(())
        });
    }
    let output = python.output().expect("it ends");
    assert_eq!(
        String::from_utf8_lossy(&output.stdout).trim(),
        libc::ENOSYS.to_string()
    );
}
