//! The peer: Debian's runc, as whoever uses it calls it.

use std::fs::{self, Permissions};
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use hearth_tests::cgroup::Cgroup;
use hearth_tests::{child, programs, requirement};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, unmount,
};
use rustix::thread::UnshareFlags;
use serde_json::{Value, json};

use super::side::{Running, Side};
use super::{MEMORY, MILLICORES, PIDS, WRITABLE};

/// Here are the layer of both sides, the bundles, and runc's own state.
const FOLDER: &str = "/run/hearth-bench-sandbox";

/// How long anything may take.
const PATIENCE: Duration = Duration::from_mins(1);

/// Root of the container, and user 1000 in it, on this machine.
const BASE: u32 = 0x7000_0000;

/// Where the container finds its Runtime API.
const API: &str = "/api";

/// Makes bundles and runs them.
pub(super) struct Runc {
    program: PathBuf,
    cgroup: Cgroup,
    next: AtomicU32,
}

/// A container that runs.
pub(super) struct Container {
    id: String,
    took: Duration,
    /// Closed when it is to end.
    _api: std::os::unix::net::UnixStream,
}

impl Running for Container {
    fn took(&self) -> Duration {
        self.took
    }
}

impl Drop for Runc {
    fn drop(&mut self) {
        if let Err(error) = self.sweep() {
            eprintln!("{FOLDER} is left: {error:#}");
        }
    }
}

impl Runc {
    /// Removes what a run that was killed has left, and makes the layer.
    pub(super) fn new() -> Result<Self> {
        // Mounts for containers are ours alone, and gone with us.
        // SAFETY: no other thread runs yet, and no descriptor table is unshared.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) }
            .context("a mount namespace of our own")?;
        let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        mount_change("/", private).context("keep mounts from others")?;
        let runc = Self {
            program: requirement::tool("runc", "runc")?,
            cgroup: Cgroup::named("bench-runc")?,
            next: AtomicU32::new(0),
        };
        runc.sweep()
            .context("remove what an earlier run has left")?;
        let layer = layer();
        for folder in ["", "proc", "dev", "tmp"] {
            folder_for_all(&layer.join(folder))?;
        }
        fs::write(layer.join("api"), "")?;
        let function = layer.join("function");
        fs::copy(programs::c_static("function")?, &function).context("copy the function")?;
        fs::set_permissions(&function, Permissions::from_mode(0o755))?;
        folder_for_all(Path::new(FOLDER))?;
        Ok(runc)
    }

    fn sweep(&self) -> Result<()> {
        let state = Path::new(FOLDER).join("state");
        for entry in fs::read_dir(&state).into_iter().flatten() {
            if let Some(id) = entry?.file_name().to_str() {
                self.delete(id)?;
            }
        }
        match fs::remove_dir_all(FOLDER) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }

    fn command(&self, verb: &str) -> Command {
        let mut command = Command::new(&self.program);
        command
            .arg("--root")
            .arg(Path::new(FOLDER).join("state"))
            .arg(verb)
            .stdin(Stdio::null());
        command
    }

    fn delete(&self, id: &str) -> Result<()> {
        let mut delete = self.command("delete");
        delete.args(["--force", id]);
        child::run(&mut delete, PATIENCE)?
            .success()
            .context("runc delete")?;
        Ok(())
    }

    fn config(&self, id: &str, bundle: &Path) -> Value {
        let kinds = ["pid", "mount", "network", "ipc", "uts", "user", "cgroup"];
        let namespaces: Vec<_> = kinds.iter().map(|kind| json!({ "type": kind })).collect();
        let ids = json!([
            { "containerID": 0, "hostID": BASE, "size": 1 },
            { "containerID": 1000, "hostID": BASE + 1, "size": 1 },
        ]);
        json!({
            "ociVersion": "1.0.2",
            "process": {
                "user": { "uid": 1000, "gid": 1000 },
                "args": ["/function"],
                "env": [format!("AWS_LAMBDA_RUNTIME_API={API}")],
                "cwd": "/",
                "noNewPrivileges": true,
                "rlimits": [{ "type": "RLIMIT_NOFILE", "hard": 256, "soft": 256 }],
            },
            "root": { "path": bundle.join("root") },
            "hostname": "sandbox",
            "mounts": [
                { "destination": "/proc", "type": "proc", "source": "proc" },
                {
                    "destination": "/dev", "type": "tmpfs", "source": "tmpfs",
                    "options": ["nosuid", "mode=755", "size=64k"],
                },
                {
                    "destination": API, "type": "bind", "source": bundle.join("api"),
                    "options": ["bind"],
                },
            ],
            "linux": {
                "uidMappings": ids,
                "gidMappings": ids,
                "namespaces": namespaces,
                "cgroupsPath": format!("{}/{id}", self.cgroup.path),
                "resources": {
                    "memory": { "limit": MEMORY },
                    "cpu": { "quota": MILLICORES * 100, "period": 100_000 },
                    "pids": { "limit": PIDS },
                },
                "maskedPaths": ["/proc/kcore", "/proc/keys", "/proc/timer_list"],
                "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys"],
            },
        })
    }
}

/// What is at `/` below what can be written, of both sides.
pub(super) fn layer() -> PathBuf {
    Path::new(FOLDER).join("layer")
}

impl Side for Runc {
    type Running = Container;

    fn start(&self) -> Result<Container> {
        let id = format!("bench-{}", self.next.fetch_add(1, Ordering::Relaxed));
        let bundle = Path::new(FOLDER).join(&id);
        for folder in ["", "root", "writable"] {
            folder_for_all(&bundle.join(folder))?;
        }
        fs::write(
            bundle.join("config.json"),
            self.config(&id, &bundle).to_string(),
        )?;
        let api = UnixListener::bind(bundle.join("api")).context("listen for the function")?;
        fs::set_permissions(bundle.join("api"), Permissions::from_mode(0o666))?;
        let mut run = self.command("run");
        run.arg("--detach")
            .arg("--bundle")
            .arg(&bundle)
            .arg(&id)
            .stdout(Stdio::null())
            .stderr(fs::File::create(bundle.join("said"))?);

        let begin = Instant::now();
        overlay(&bundle, &layer())?;
        let mut running = child::Guard(run.spawn().context("start runc")?);
        let asked = first_request(&api);
        let took = begin.elapsed();
        let said = || fs::read_to_string(bundle.join("said")).unwrap_or_default();
        let api = asked.with_context(said)?;
        ensure!(running.wait(PATIENCE)?.success(), "runc run: {}", said());
        Ok(Container {
            id,
            took,
            _api: api,
        })
    }

    fn end(&self, running: Container) -> Result<()> {
        self.delete(&running.id)?;
        let bundle = Path::new(FOLDER).join(&running.id);
        for mounted in ["root", "writable"] {
            unmount(bundle.join(mounted), UnmountFlags::DETACH)?;
        }
        Ok(fs::remove_dir_all(bundle)?)
    }
}

/// What runc expects to be there.
fn overlay(bundle: &Path, layer: &Path) -> Result<()> {
    let writable = bundle.join("writable");
    let size = std::ffi::CString::new(format!("size={WRITABLE},mode=755"))?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    mount("tmpfs", &writable, "tmpfs", flags, size.as_c_str()).context("mount a tmpfs")?;
    let (upper, work) = (writable.join("upper"), writable.join("work"));
    fs::create_dir(&upper)?;
    fs::create_dir(&work)?;
    let layers = format!(
        "lowerdir={},upperdir={},workdir={}",
        layer.display(),
        upper.display(),
        work.display()
    );
    let layers = std::ffi::CString::new(layers)?;
    mount(
        "overlay",
        bundle.join("root"),
        "overlay",
        flags,
        layers.as_c_str(),
    )
    .context("mount an overlay")
}

/// The connection on which the function asks for work, when it has.
fn first_request(api: &UnixListener) -> Result<std::os::unix::net::UnixStream> {
    let mut ready = [PollFd::new(api, PollFlags::IN)];
    let timeout = Timespec::try_from(PATIENCE)?;
    ensure!(
        poll(&mut ready, Some(&timeout))? == 1,
        "the function in the container did not ask for work"
    );
    let (mut asking, _) = api.accept()?;
    asking.set_read_timeout(Some(PATIENCE))?;
    ensure!(asking.read(&mut [0; 4096])? > 0, "the function ended");
    Ok(asking)
}

fn folder_for_all(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    fs::set_permissions(folder, Permissions::from_mode(0o755))?;
    Ok(())
}
