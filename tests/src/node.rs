//! A node of its own for sandboxes: a spawner with its own directory and cgroup, and what is left
//! of both when it has ended.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use hearth_runtime::sandbox::Places;
use hearth_runtime::sandbox::process::Processes;
use hearth_runtime::sandbox::spawner::Spawner;
use hearth_runtime::sandbox::start::{HugePages, Network, Program, Root, Start};
use rustix::process::{Pid, Signal, kill_process};

use crate::{cgroup, child, machine, trace};

/// How long anything may take on a slow machine.
pub const PATIENCE: Duration = Duration::from_mins(1);

/// A directory and a cgroup for one spawner after the other, ended and swept when dropped.
#[derive(Debug)]
pub struct Node {
    name: String,
    directory: PathBuf,
    init: Option<PathBuf>,
    /// Of the next spawners, beside those that every one has.
    pub options: Vec<String>,
    spawner: Option<Child>,
}

impl Node {
    /// With a running spawner that keeps `slots` parked.
    pub fn start(what: &str, slots: u16) -> Result<Self> {
        let mut node = Self::new(what, None)?;
        node.start_spawner(slots)?;
        Ok(node)
    }

    /// Without a spawner; they will take `init` for `hearth-init` where one is given.
    pub fn new(what: &str, init: Option<PathBuf>) -> Result<Self> {
        let name = cgroup::unique(what);
        let directory = PathBuf::from("/run").join(&name);
        fs::DirBuilder::new()
            .mode(0o700)
            .create(&directory)
            .with_context(|| format!("make {}", directory.display()))?;
        Ok(Self {
            name,
            directory,
            init,
            options: Vec::new(),
            spawner: None,
        })
    }

    /// Starts the spawner, and waits until it takes questions.
    pub fn start_spawner(&mut self, slots: u16) -> Result<()> {
        let mut child = self.command(slots)?.spawn().context("start the spawner")?;
        let deadline = Instant::now() + PATIENCE;
        while Spawner::connect(&self.places(), PATIENCE).is_err() {
            if let Some(status) = child.try_wait()? {
                bail!("the spawner ended with {status}");
            }
            if Instant::now() > deadline {
                let _ = child.kill();
                bail!("the spawner does not listen");
            }
            thread::sleep(Duration::from_millis(2));
        }
        self.spawner = Some(child);
        Ok(())
    }

    /// The command line of a spawner of this node.
    pub fn command(&self, slots: u16) -> Result<Command> {
        let program = trace::hearth()?.with_file_name("hearth-spawner");
        ensure!(
            program.is_file(),
            "there is no {}: run `cargo xtask build`",
            program.display()
        );
        let mut command = Command::new(program);
        command
            .args(["--place", "root", "--cgroup", &self.name])
            .args(["--slots", &slots.to_string()])
            .arg("--directory")
            .arg(&self.directory)
            .args(&self.options)
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        if let Some(init) = &self.init {
            command.arg("--init").arg(init);
        }
        Ok(command)
    }

    /// Waits until as many are parked.
    pub fn parked(&self, count: u32) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let mut spawner = self.spawner()?;
        loop {
            let slots = spawner.slots()?;
            if slots.parked >= count {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "only {slots:?}");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Where its sockets are.
    #[must_use]
    pub fn places(&self) -> Places {
        Places::below(&self.directory)
    }

    /// Sandboxes of it.
    #[must_use]
    pub fn sandboxes(&self) -> Processes {
        Processes::new(self.places())
    }

    /// A connection to its spawner.
    pub fn spawner(&self) -> Result<Spawner> {
        Ok(Spawner::connect(&self.places(), PATIENCE)?)
    }

    /// The number of its spawner.
    pub fn spawner_pid(&self) -> Result<u32> {
        Ok(self.spawner.as_ref().context("there is no spawner")?.id())
    }

    /// Kills the spawner, without a word.
    pub fn kill_spawner(&mut self) -> Result<()> {
        let mut spawner = self.spawner.take().context("there is no spawner")?;
        spawner.kill()?;
        spawner.wait()?;
        Ok(())
    }

    /// Waits until the spawner has ended, and says how.
    pub fn wait_for_spawner(&mut self) -> Result<ExitStatus> {
        let spawner = self.spawner.take().context("there is no spawner")?;
        child::Guard(spawner).wait(PATIENCE)
    }

    /// The name of its cgroup.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// All that sandboxes of this node have on this machine now, as the kernel tells it.
    pub fn remains(&self) -> Result<Remains> {
        Ok(Remains {
            processes: processes(&self.name)?,
            cgroups: cgroups(&self.name)?,
            sockets: sockets(&self.places().sandboxes())?,
        })
    }

    /// Waits until nothing is left but what is parked: as many processes, cgroups and sockets as
    /// there are slots.
    pub fn settled(&self, before: &Remains) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let now = self.remains()?;
            let counts = |remains: &Remains| {
                (
                    remains.processes.len(),
                    remains.cgroups.len(),
                    remains.sockets.len(),
                )
            };
            if counts(&now) == counts(before) {
                return Ok(());
            }
            ensure!(
                Instant::now() < deadline,
                "before: {before:#?}\nnow: {now:#?}"
            );
            thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Node {
    fn end_all(&self) -> Result<()> {
        let mut spawner = self.spawner()?;
        for listed in spawner.list()? {
            spawner.end(listed.sandbox)?;
        }
        Ok(())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Whatever the test left: a spawner that finds nothing claimed takes all of it away. Where
        // there is none, or it was told to end by whoever ends all of us, another one does.
        if self.end_all().is_err() {
            if let Some(mut spawner) = self.spawner.take() {
                let _ = spawner.kill();
                let _ = spawner.wait();
            }
            let ended = self.start_spawner(0).and_then(|()| self.end_all());
            if let Err(error) = ended {
                eprintln!("{}: sandboxes are left: {error:#}", self.name);
            }
        }
        if let Some(mut spawner) = self.spawner.take() {
            let pid = i32::try_from(spawner.id()).ok().and_then(Pid::from_raw);
            if let Some(pid) = pid {
                // Not reaped before it is waited for: the number is its own.
                let _ = kill_process(pid, Signal::TERM);
            }
            let _ = spawner.wait();
        }
        let _ = fs::remove_dir_all(&self.directory);
        for directory in cgroups(&self.name).unwrap_or_default().iter().rev() {
            let _ = fs::remove_dir(directory);
        }
    }
}

/// What there is of sandboxes on a machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Remains {
    /// Numbers and names of processes in cgroups of the node.
    pub processes: BTreeSet<(u32, String)>,
    /// Directories of cgroups, in any hierarchy.
    pub cgroups: BTreeSet<PathBuf>,
    /// Sockets.
    pub sockets: BTreeSet<PathBuf>,
}

/// Those in the slots of a node; its spawner is not in one.
fn processes(name: &str) -> Result<BTreeSet<(u32, String)>> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir("/proc")? {
        let Some(pid) = entry?
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        // It may be gone by now.
        let Ok(cgroup) = fs::read_to_string(format!("/proc/{pid}/cgroup")) else {
            continue;
        };
        if cgroup.contains(&format!("/{name}/slot-")) {
            let comm = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            found.insert((pid, comm.trim().to_owned()));
        }
    }
    Ok(found)
}

fn cgroups(name: &str) -> Result<BTreeSet<PathBuf>> {
    let mut found = BTreeSet::new();
    for mount in cgroup::mounts()? {
        let subtree = mount.join(name);
        let Ok(entries) = fs::read_dir(&subtree) else {
            continue;
        };
        for entry in entries.flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                found.insert(entry.path());
            }
        }
        found.insert(subtree);
    }
    Ok(found)
}

fn sockets(directory: &Path) -> Result<BTreeSet<PathBuf>> {
    match fs::read_dir(directory) {
        Ok(entries) => Ok(entries.flatten().map(|entry| entry.path()).collect()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(BTreeSet::new()),
        Err(error) => Err(error.into()),
    }
}

/// Ends and removes nodes of this name whose test was killed.
pub fn sweep(what: &str) -> Result<()> {
    for entry in fs::read_dir("/run")? {
        let Ok(name) = entry?.file_name().into_string() else {
            continue;
        };
        let of = name.strip_prefix(&format!("hearth-test-{what}-"));
        let Some((pid, _)) = of.and_then(|rest| rest.split_once('-')) else {
            continue;
        };
        if Path::new("/proc").join(pid).exists() {
            continue;
        }
        end_orphans(&name)?;
        // Dropping it does the rest.
        drop(Node {
            directory: PathBuf::from("/run").join(&name),
            name,
            init: None,
            options: Vec::new(),
            spawner: None,
        });
    }
    Ok(())
}

/// The spawner that has this cgroup is nobody's, and so is the agent whose configuration names it.
fn end_orphans(node: &str) -> Result<()> {
    for entry in fs::read_dir("/proc")? {
        let path = entry?.path();
        let arguments = fs::read(path.join("cmdline")).unwrap_or_default();
        let mut words = arguments.split(|&byte| byte == 0);
        let program = words.next().unwrap_or_default();
        let is_of_node = if program.ends_with(b"/hearth-spawner") {
            words.any(|word| word == node.as_bytes())
        } else if program.ends_with(b"/hearth") {
            let mut configurations = words.filter(|word| word.ends_with(b".toml"));
            configurations.any(|file| {
                let text = fs::read_to_string(OsStr::from_bytes(file)).unwrap_or_default();
                text.contains(&format!("/{node}\""))
            })
        } else {
            false
        };
        if is_of_node {
            let pid = path
                .file_name()
                .and_then(|name| name.to_str()?.parse().ok());
            if let Some(pid) = pid.and_then(Pid::from_raw) {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
    }
    Ok(())
}

/// Namespaces of one kind that processes of this machine are in.
pub fn namespaces(kind: &str) -> Result<BTreeSet<u64>> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir("/proc")? {
        let link = entry?.path().join("ns").join(kind);
        if let Ok(namespace) = fs::metadata(link) {
            found.insert(namespace.ino());
        }
    }
    Ok(found)
}

/// The layers of the functions that tests deploy: `HEARTH_FUNCTIONS`, or what set-up has made.
pub fn layer(name: &str) -> Result<PathBuf> {
    let folder = std::env::var_os("HEARTH_FUNCTIONS")
        .map_or_else(|| machine::target().join("functions"), PathBuf::from);
    let layer = folder.join(name);
    ensure!(
        layer.is_dir(),
        "there is no layer {}: run `cargo xtask layers`",
        layer.display()
    );
    // Layers are opened without following links.
    Ok(layer.canonicalize()?)
}

/// A language that functions are written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    /// By `lambda_runtime`.
    Rust,
    /// By `awslambdaric`.
    Python,
    /// A custom runtime in busybox's shell.
    Shell,
}

impl Language {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Rust, Self::Python, Self::Shell];

    /// How its function is started.
    pub fn start(self) -> Result<Start> {
        let (name, layers, command, environment): (_, &[&str], &[&str], &[(&str, &str)]) =
            match self {
                Self::Rust => ("rust", &["rust"], &["/bootstrap"], &[]),
                Self::Python => (
                    "python",
                    &["python", "python-function"],
                    &[
                        "/usr/bin/python3.11",
                        "-m",
                        "awslambdaric",
                        "function.handler",
                    ],
                    &[("PYTHONPATH", "/opt/python:/var/task")],
                ),
                Self::Shell => ("shell", &["shell"], &["/bootstrap"], &[]),
            };
        let layers = layers.iter().map(|name| layer(name));
        let pair = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Ok(Start {
            function: name.parse()?,
            version: 1,
            root: Root {
                layers: layers.collect::<Result<_>>()?,
                writable_bytes: 8 << 20,
            },
            program: Program {
                command: command.iter().map(|&word| word.to_owned()).collect(),
                environment: environment.iter().map(pair).collect(),
                directory: if self == Self::Python {
                    "/var/task".into()
                } else {
                    "/".into()
                },
            },
            syscalls: Vec::new(),
            open_files: 256,
            memory_bytes: None,
            huge_pages: HugePages::Node,
            network: Network::Loopback,
        })
    }
}
