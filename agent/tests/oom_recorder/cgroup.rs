//! Cgroups of the tests, removed when they are dropped.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use hearth::observe::identity::MemoryHierarchy;

/// A cgroup of the hierarchy with the memory controller.
pub(crate) struct Cgroup {
    directory: PathBuf,
    path: String,
    id: u64,
}

impl Cgroup {
    /// Makes one, without a limit.
    pub(crate) fn make(what: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("hearth-recorder-{what}-{}-{number}", std::process::id());
        let hierarchy = MemoryHierarchy::find().expect("a hierarchy");
        // The root of v2 gives the controller to those below it when it is told to; v1 has no
        // such file.
        let control = hierarchy.mount().join("cgroup.subtree_control");
        if control.exists() {
            fs::write(control, "+memory").expect("the controller");
        }
        let made = Self::at(hierarchy.mount().join(&name), format!("/{name}"));
        // Swapped pages would keep it from its limit; where nothing can be swapped there is no
        // such file.
        let _ = fs::write(made.directory.join("memory.swap.max"), "0");
        made
    }

    /// Makes one inside it, which has none of its own limits.
    pub(crate) fn child(&self, name: &str) -> Self {
        Self::at(self.directory.join(name), format!("{}/{name}", self.path))
    }

    fn at(directory: PathBuf, path: String) -> Self {
        fs::create_dir(&directory).expect("a cgroup; this test takes root");
        let id = directory.metadata().expect("its directory").ino();
        Self {
            directory,
            path,
            id,
        }
    }

    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    pub(crate) fn is_v2(&self) -> bool {
        self.directory.join("cgroup.controllers").exists()
    }

    pub(crate) fn set_limit(&self, bytes: u64) {
        let name = ["memory.limit_in_bytes", "memory.max"][usize::from(self.is_v2())];
        fs::write(self.directory.join(name), bytes.to_string()).expect("a limit");
    }

    pub(crate) fn usage(&self) -> u64 {
        let name = ["memory.usage_in_bytes", "memory.current"][usize::from(self.is_v2())];
        let text = fs::read_to_string(self.directory.join(name)).expect("its usage");
        text.trim().parse().expect("a number")
    }
}

/// Runs a command in `cgroup`, to its end.
pub(crate) fn run_in(cgroup: &Cgroup, command: &str, stdout: Stdio) {
    let line = format!("echo $$ > \"$0\" && exec {command}");
    let status = Command::new("/bin/sh")
        .args(["-c", &line])
        .arg(cgroup.directory().join("cgroup.procs"))
        .stdout(stdout)
        .status();
    assert!(status.expect("a shell").success(), "{command}");
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // Its last process may not be gone yet.
        for _ in 0..500 {
            if fs::remove_dir(&self.directory).is_ok() || !self.directory.exists() {
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
        eprintln!("{} could not be removed", self.directory.display());
    }
}
