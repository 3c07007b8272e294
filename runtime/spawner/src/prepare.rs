//! All that must be so before the first sandbox is made.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use hearth_runtime::journal::{Journal, JournalError, Replay};
use hearth_runtime::private;
use hearth_runtime::sandbox::Places;
use rustix::fs::{FileType, Mode, OFlags};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What this program and the hearth-init of each sandbox need, by number.
const CAPABILITIES: [(u32, &str); 8] = [
    (0, "CAP_CHOWN"),
    (1, "CAP_DAC_OVERRIDE"),
    (5, "CAP_KILL"),
    (6, "CAP_SETGID"),
    (7, "CAP_SETUID"),
    (8, "CAP_SETPCAP"),
    (12, "CAP_NET_ADMIN"),
    (21, "CAP_SYS_ADMIN"),
];

/// Longest path of a socket that the kernel takes.
const LONGEST: usize = 107;
/// How long a spawner that was killed may still hold what only one can have: a child that it had
/// just begun holds it for a moment.
const HELD: Duration = Duration::from_secs(2);

/// Refuses to go on as somebody who could not do it.
pub(crate) fn privileges() -> Result<()> {
    ensure!(
        rustix::process::geteuid().is_root(),
        "hearth-spawner makes namespaces and cgroups: start it as root"
    );
    let status = fs::read_to_string("/proc/self/status").context("read /proc/self/status")?;
    let mut lines = status.lines();
    let effective = lines.find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|set| u64::from_str_radix(set.trim(), 16).ok());
    let effective = effective.context("/proc/self/status tells no capabilities")?;
    let lacks = |(bit, _): &&(u32, &str)| effective >> bit & 1 == 0;
    let missing: Vec<_> = CAPABILITIES
        .iter()
        .filter(lacks)
        .map(|(_, name)| *name)
        .collect();
    ensure!(
        missing.is_empty(),
        "{} missing: start hearth-spawner with it (systemd: CapabilityBoundingSet=)",
        missing.join(", ")
    );
    Ok(())
}

/// The directories, this user's alone.
pub(crate) fn directories(places: &Places) -> Result<()> {
    let longest = format!("{}/0123456789abcdef.sock", places.sandboxes().display());
    ensure!(
        longest.len() <= LONGEST,
        "--directory {}: sockets in it would have paths of {} bytes, and the kernel takes {LONGEST}: \
         choose a shorter one",
        places.directory().display(),
        longest.len()
    );
    private::directory(places.directory())?;
    private::directory(&places.sandboxes())?;
    Ok(())
}

/// The journal, which one spawner has at a time.
pub(crate) fn journal(places: &Places) -> Result<(Journal, Replay)> {
    let mut opened = Journal::open(&places.journal());
    let until = Instant::now() + HELD;
    while matches!(opened, Err(JournalError::Busy { .. })) && Instant::now() < until {
        thread::sleep(Duration::from_millis(10));
        opened = Journal::open(&places.journal());
    }
    Ok(opened?)
}

/// As [`journal`], of the cgroup that another spawner may have, whose directory is another one.
pub(crate) fn lock(subtree: &hearth_runtime::cgroup::Subtree, name: &str) -> Result<()> {
    let until = Instant::now() + HELD;
    while !subtree.lock()? {
        if Instant::now() >= until {
            bail!("--cgroup {name}: another hearth-spawner has it: choose another name");
        }
        thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// As many open files as we may have; how many that are.
pub(crate) fn open_files() -> Result<usize> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    setrlimit(Resource::Nofile, raised).context("raise the limit of open files")?;
    Ok(usize::try_from(limit.maximum.unwrap_or(1 << 20)).unwrap_or(usize::MAX))
}

/// `hearth-init`, opened: what is put in its place later is not what runs.
pub(crate) fn init(given: Option<&Path>) -> Result<OwnedFd> {
    const ELSEWHERE: &str = "/usr/lib/hearth/hearth-init";
    let beside = std::env::current_exe().ok();
    let beside = beside.and_then(|own| Some(own.parent()?.join("hearth-init")));
    let path: PathBuf = match (given, beside) {
        (Some(given), _) => given.to_path_buf(),
        (None, Some(beside)) if beside.exists() => beside,
        _ => ELSEWHERE.into(),
    };
    let told = || format!("--init {}", path.display());
    let init = rustix::fs::open(&path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .with_context(|| format!("{}: install it there, or say where it is", told()))?;
    let status = rustix::fs::fstat(&init).with_context(told)?;
    let mode = status.st_mode;
    ensure!(
        FileType::from_raw_mode(mode) == FileType::RegularFile && mode & 0o111 != 0,
        "{}: is no program",
        told()
    );
    ensure!(
        mode & 0o022 == 0 && (status.st_uid == 0),
        "{}: others than root could change it: give it to root with mode 0755",
        told()
    );
    Ok(init)
}

/// Where clients connect.
pub(crate) fn listener(places: &Places) -> Result<UnixListener> {
    let path = places.spawner();
    let told = || format!("listen on {}", path.display());
    // Of a spawner before us, as we have its journal.
    match fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(told);
        }
        _ => {}
    }
    Ok(crate::park::listen(&path).with_context(told)?.into())
}
