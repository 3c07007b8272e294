//! Cgroups of the hierarchy that carries the memory controller: v1, v2 or hybrid.

use std::fs;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

/// Where the hierarchy is mounted, and how `/proc/PID/cgroup` names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchy {
    /// Mount point.
    pub mount: PathBuf,
    /// Whether it is cgroup v2.
    pub v2: bool,
}

impl Hierarchy {
    /// The one with the memory controller: a v1 mount of it where there is one, else v2.
    pub fn memory() -> Result<Self> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").context("read own mounts")?;
        let mut v2 = None;
        for line in mounts.lines() {
            let Some((before, after)) = line.split_once(" - ") else {
                continue;
            };
            let Some(mount) = before.split(' ').nth(4).map(PathBuf::from) else {
                continue;
            };
            let mut after = after.split(' ');
            let kind = after.next().unwrap_or_default();
            let options = after.nth(1).unwrap_or_default();
            if kind == "cgroup" && options.split(',').any(|option| option == "memory") {
                return Ok(Self { mount, v2: false });
            }
            if kind == "cgroup2" {
                v2.get_or_insert(mount);
            }
        }
        let mount = v2.context("neither cgroup v1 memory nor cgroup v2 is mounted")?;
        Ok(Self { mount, v2: true })
    }

    /// The path of a process within it; `process` is an id or `self`.
    pub fn path_of(&self, process: &str) -> Result<String> {
        let file = format!("/proc/{process}/cgroup");
        let text = fs::read_to_string(&file).with_context(|| format!("read {file}"))?;
        text.lines()
            .filter_map(|line| {
                let mut fields = line.splitn(3, ':');
                Some((fields.next()?, fields.next()?, fields.next()?))
            })
            .find(|(id, controllers, _)| {
                if self.v2 {
                    *id == "0"
                } else {
                    controllers.split(',').any(|c| c == "memory")
                }
            })
            .map(|(_, _, path)| path.to_owned())
            .with_context(|| format!("{file} names no cgroup of {}", self.mount.display()))
    }
}

/// Every hierarchy that is mounted, with the options of v1 (its controllers among them).
fn mounted() -> Result<Vec<(Hierarchy, Vec<String>)>> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("read own mounts")?;
    let hierarchy = |line: &str| {
        let (before, after) = line.split_once(" - ")?;
        let mount = PathBuf::from(before.split(' ').nth(4)?);
        let mut after = after.split(' ');
        let v2 = match after.next()? {
            "cgroup" => false,
            "cgroup2" => true,
            _ => return None,
        };
        let options = after.nth(1).filter(|_| !v2).unwrap_or_default();
        Some((
            Hierarchy { mount, v2 },
            options.split(',').map(str::to_owned).collect(),
        ))
    };
    Ok(mounts.lines().filter_map(hierarchy).collect())
}

/// Where hierarchies are mounted, all of them.
pub fn mounts() -> Result<Vec<PathBuf>> {
    let mounts = mounted()?.into_iter();
    Ok(mounts.map(|(hierarchy, _)| hierarchy.mount).collect())
}

/// A name that no other test uses: `hearth-test-WHAT-PID-N`.
#[must_use]
pub fn unique(what: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!(
        "hearth-test-{what}-{}-{}",
        process::id(),
        NEXT.fetch_add(1, Ordering::Relaxed)
    )
}

/// A cgroup that is removed when dropped, with the ones inside it, from every hierarchy.
#[derive(Debug)]
pub struct Cgroup {
    /// Its directory.
    pub directory: PathBuf,
    /// Its path within the hierarchy.
    pub path: String,
}

impl Cgroup {
    /// Names one below the root of the memory hierarchy; someone else makes it.
    pub fn named(what: &str) -> Result<Self> {
        Self::of(&unique(what))
    }

    /// Names one as that of a systemd service.
    pub fn service(what: &str) -> Result<Self> {
        Self::of(&format!("{}.service", unique(what)))
    }

    fn of(name: &str) -> Result<Self> {
        let directory = Hierarchy::memory()?.mount.join(name);
        Ok(Self {
            directory,
            path: format!("/{name}"),
        })
    }

    /// Makes one below the root of the memory hierarchy.
    pub fn create(what: &str) -> Result<Self> {
        let cgroup = Self::named(what)?;
        fs::create_dir(&cgroup.directory)
            .with_context(|| format!("make {}", cgroup.directory.display()))?;
        Ok(cgroup)
    }
}

fn remove(directory: &Path) {
    if let Ok(children) = fs::read_dir(directory) {
        for child in children.flatten() {
            if child.file_type().is_ok_and(|kind| kind.is_dir()) {
                remove(&child.path());
            }
        }
    }
    // Its last process may not be reaped yet.
    for _ in 0..500 {
        if !directory.exists() || fs::remove_dir(directory).is_ok() {
            return;
        }
        thread::sleep(Duration::from_millis(10));
    }
    eprintln!("{} could not be removed", directory.display());
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        for (hierarchy, _) in mounted().unwrap_or_default() {
            remove(&hierarchy.mount.join(self.path.trim_start_matches('/')));
        }
    }
}
