//! A program that tries to get out in every way that it knows, in a sandbox and on the node.

use std::collections::BTreeMap;
use std::fs;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::net::{SocketAddr, UnixListener};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use hearth_runtime::sandbox::backend::SandboxError;
use hearth_runtime::sandbox::message::{Exit, NotStarted};
use hearth_runtime::sandbox::start::Start;
use hearth_tests::node::{Language, Node, PATIENCE};
use hearth_tests::{cgroup, programs};
use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use crate::scene::{Instance, resources};

/// What only the node has: a file, and a socket without one.
struct Treasure {
    folder: tempfile::TempDir,
    socket: String,
    _listener: UnixListener,
}

impl Treasure {
    fn hide() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        fs::write(folder.path().join("treasure"), "x")?;
        let socket = cgroup::unique("treasure");
        let address = SocketAddr::from_abstract_name(&socket)?;
        Ok(Self {
            folder,
            socket,
            _listener: UnixListener::bind_addr(&address)?,
        })
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("treasure")
    }
}

/// What became of each attempt, by its name: `out`, or what the kernel said.
fn attempts(log: &str) -> Result<BTreeMap<String, String>> {
    let pair = |line: &str| {
        let (name, said) = line.split_once(' ').with_context(|| line.to_owned())?;
        Ok((name.to_owned(), said.to_owned()))
    };
    log.lines().map(pair).collect()
}

/// A layer with the program, and with links where a sandbox mounts its own.
fn layer(treasure: &Treasure) -> Result<tempfile::TempDir> {
    let layer = tempfile::tempdir()?;
    let program = programs::c_static("escape")?;
    for (name, mode) in [("escape", 0o755), ("setuid", 0o6755)] {
        let path = layer.path().join(name);
        fs::copy(&program, &path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
    }
    for name in ["proc", "dev", "tmp"] {
        symlink(treasure.folder.path(), layer.path().join(name))?;
    }
    Ok(layer)
}

fn start(layer: &Path, treasure: &Treasure) -> Result<Start> {
    let mut start = Language::Shell.start()?;
    start.root.layers = vec![layer.to_owned()];
    let file = treasure.file().to_string_lossy().into_owned();
    start.program.command = vec!["/escape".into(), file, treasure.socket.clone()];
    Ok(start)
}

#[test]
fn no_attempt_gets_out_and_refused_calls_are_told() -> Result<()> {
    let node = Node::start("escape", 1)?;
    node.parked(1)?;
    let before = node.remains()?;
    let treasure = Treasure::hide()?;
    let layer = layer(&treasure)?;
    let start = start(layer.path(), &treasure)?;
    let mut instance = Instance::claim(&node, &start, resources())?;
    match instance.start(&start, PATIENCE) {
        Err(SandboxError::NotStarted { why, .. }) => {
            assert_eq!(
                why,
                NotStarted::Exited { how: Exit::Code(0) },
                "all were made"
            );
        }
        other => bail!("{other:?}"),
    }
    let attempts = attempts(&instance.log)?;
    assert!(attempts.len() > 60, "{attempts:#?}");
    for (name, said) in &attempts {
        assert!(said != "out" && said != "killed", "{name}: {said}");
    }
    for call in [
        "bpf", "clone", "ioctl", "keyctl", "mount", "ptrace", "socket", "unshare",
    ] {
        assert!(instance.refused.iter().any(|told| told == call), "{call}");
    }
    let hidden: Vec<_> = fs::read_dir(treasure.folder.path())?.collect();
    assert_eq!(
        hidden.len(),
        1,
        "nothing was written through a link: {hidden:?}"
    );
    instance.end()?;
    node.settled(&before)
}

/// An attempt that fails everywhere shows nothing.
#[test]
fn root_of_the_node_gets_out_by_the_same_attempts() -> Result<()> {
    let treasure = Treasure::hide()?;
    let mut command = Command::new(programs::c_static("escape")?);
    command.arg(treasure.file()).arg(&treasure.socket);
    // SAFETY: between fork and exec it makes two system calls and allocates nothing.
    unsafe { command.pre_exec(apart) };
    let output = command.stdin(Stdio::null()).output()?;
    let attempts = attempts(&String::from_utf8(output.stdout)?)?;
    for name in [
        "become_root",
        "bpf",
        "change_root",
        "clock_of_the_node",
        "clone3_user",
        "clone_user",
        "core_pattern",
        "device",
        "device_directory",
        "fault_handler",
        "file_above_the_root",
        "file_of_the_node",
        "first_process_is_seen",
        "host_name",
        "kernel_log",
        "kernel_symbols",
        "keys",
        "mount_cgroup2",
        "mount_new",
        "mount_proc",
        "no_randomisation",
        "packet_socket",
        "perf_events",
        "power",
        "proc_cwd",
        "proc_fd",
        "proc_root",
        "raw_socket",
        "release_agent",
        "signal_out",
        "socket_of_the_node",
        "sys",
        "trace",
        "unshare_mounts",
        "unshare_user",
    ] {
        let said = attempts.get(name).map(String::as_str);
        assert_eq!(said, Some("out"), "{name}");
    }
    let _ = fs::remove_dir("/tmp/mounted");
    Ok(())
}

/// Mounts, and the host's name, are this program's alone.
fn apart() -> std::io::Result<()> {
    let new = UnshareFlags::NEWNS | UnshareFlags::NEWUTS;
    // SAFETY: of what is shared with other threads nothing is unshared.
    unsafe { unshare_unsafe(new) }?;
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    Ok(mount_change("/", private)?)
}
