//! A container of the real `runc`, from a root file system with busybox and the test's program.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::cgroup::Cgroup;
use crate::child::{self, Finished};
use crate::report::ReportFile;
use crate::{clock, programs, requirement};

/// An OCI bundle and the container of it; the container is deleted when this is dropped.
#[derive(Debug)]
pub struct Bundle {
    /// The container's id: 64 hexadecimal digits.
    pub id: String,
    /// Where the program in it reports.
    pub report: ReportFile,
    cgroup: Cgroup,
    folder: TempDir,
    runc: PathBuf,
}

impl Bundle {
    /// A bundle whose entry is `arguments`. Inside, `/oracle` is the static C oracle, `/report`
    /// the folder of the report, and busybox has the usual names.
    pub fn new(arguments: &[&str]) -> Result<Self> {
        requirement::root()?;
        let runc = requirement::tool("runc", "runc")?;
        let folder = tempfile::Builder::new()
            .prefix("hearth-bundle-")
            .tempdir()
            .context("make a folder for the bundle")?;
        let bundle = Self {
            id: container_id(),
            report: ReportFile::new()?,
            cgroup: Cgroup::named("runc")?,
            folder,
            runc,
        };
        fill_root(&bundle.path().join("rootfs"))?;
        bundle.configure(arguments)?;
        Ok(bundle)
    }

    /// The bundle's folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The container's cgroup within the memory hierarchy.
    #[must_use]
    pub fn cgroup_path(&self) -> String {
        format!("{}/{}", self.cgroup.path, self.id)
    }

    fn configure(&self, arguments: &[&str]) -> Result<()> {
        let path = self.path().join("config.json");
        let mut spec = Command::new(&self.runc);
        spec.arg("spec").current_dir(self.path());
        child::run(&mut spec, Duration::from_secs(30))?
            .success()
            .context("runc spec")?;
        let text = fs::read_to_string(&path).context("read config.json")?;
        let mut config: Value = serde_json::from_str(&text).context("parse config.json")?;
        config["process"]["terminal"] = json!(false);
        config["process"]["args"] = json!(arguments);
        config["root"]["readonly"] = json!(false);
        config["linux"]["cgroupsPath"] = json!(self.cgroup_path());
        config["mounts"]
            .as_array_mut()
            .context("config.json has no mounts")?
            .push(json!({
                "destination": "/report",
                "type": "bind",
                "source": self.report.folder(),
                "options": ["bind", "rw"],
            }));
        fs::write(&path, config.to_string()).context("write config.json")
    }

    /// `runc VERB OPTIONS ID ARGUMENTS` for this container.
    #[must_use]
    pub fn runc(&self, verb: &str, options: &[&str], arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.runc);
        command
            .arg("--root")
            .arg(self.path().join("state"))
            .arg(verb)
            .args(options);
        command
            .arg(&self.id)
            .args(arguments)
            .current_dir(self.path());
        command
    }

    /// Runs a `runc` command to its end; it must succeed.
    pub fn run(&self, verb: &str, options: &[&str], arguments: &[&str]) -> Result<Finished> {
        child::run(
            &mut self.runc(verb, options, arguments),
            Duration::from_mins(1),
        )?
        .success()
        .with_context(|| format!("runc {verb}"))
    }

    /// Runs the container from begin to end, and returns the host's id of its first process.
    pub fn run_whole(&self) -> Result<u32> {
        self.run("run", &["--pid-file", "pid"], &[])?;
        self.pid()
    }

    /// The host's id of the container's first process, as `--pid-file pid` wrote it.
    pub fn pid(&self) -> Result<u32> {
        let text = fs::read_to_string(self.path().join("pid")).context("read the pid file")?;
        text.trim().parse().context("parse the pid file")
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        let _ = child::run(
            &mut self.runc("delete", &["--force"], &[]),
            Duration::from_secs(30),
        );
    }
}

/// 64 hexadecimal digits, another at each call.
fn container_id() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let process = u64::from(std::process::id());
    let now = clock::boottime_ns();
    format!(
        "{now:016x}{process:016x}{number:016x}{:016x}",
        now.rotate_left(17) ^ process
    )
}

fn fill_root(root: &Path) -> Result<()> {
    for folder in ["bin", "proc", "sys", "dev", "tmp", "report"] {
        let folder = root.join(folder);
        fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
    }
    let busybox = requirement::tool("busybox", "busybox-static")?;
    let program = fs::read(&busybox).context("read busybox")?;
    let interpreted = b"/lib64/ld-linux";
    ensure!(
        !program
            .windows(interpreted.len())
            .any(|bytes| bytes == interpreted),
        "{} is dynamically linked: apt-get install busybox-static",
        busybox.display()
    );
    for (from, to) in [
        (busybox, "bin/busybox"),
        (programs::c_static("oracle")?, "oracle"),
    ] {
        let to = root.join(to);
        fs::copy(&from, &to).with_context(|| format!("copy {}", from.display()))?;
        fs::set_permissions(&to, Permissions::from_mode(0o755)).context("make it executable")?;
    }
    for name in ["sh", "sleep", "true", "env"] {
        symlink("busybox", root.join("bin").join(name)).context("link a name of busybox")?;
    }
    Ok(())
}
