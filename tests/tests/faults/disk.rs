//! A small disk that the agent writes to, full at times.

use std::ffi::CString;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process;

use anyhow::{Context as _, Result};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

/// What mounts are of, before the number of their test.
const SOURCE: &str = "hearth-faults-";

/// A file system of its own, unmounted when dropped.
pub(crate) struct Disk(PathBuf);

impl Disk {
    /// One of so many bytes at this directory.
    pub(crate) fn mount(at: &Path, bytes: u64) -> Result<Self> {
        let options = CString::new(format!("size={bytes},mode=0700"))?;
        let source = format!("{SOURCE}{}", process::id());
        mount(&source, at, "tmpfs", MountFlags::empty(), Some(&*options))
            .context("mount a small disk")?;
        Ok(Self(at.to_owned()))
    }

    /// Unmounts those whose test was killed.
    pub(crate) fn sweep() -> Result<()> {
        for line in fs::read_to_string("/proc/self/mounts")?.lines() {
            let mut words = line.split(' ');
            let (Some(source), Some(at)) = (words.next(), words.next()) else {
                continue;
            };
            let of = source.strip_prefix(SOURCE);
            if of.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
                let at = Path::new(at);
                drop(Self(at.to_owned()));
                fs::remove_dir(at).context("remove what an earlier run left")?;
            }
        }
        Ok(())
    }

    fn filling(&self) -> PathBuf {
        self.0.join("filling")
    }

    /// Not one more byte can be written.
    pub(crate) fn fill(&self) -> Result<()> {
        let mut file = File::create(self.filling())?;
        for block in [vec![0; 1 << 20], vec![0; 1]] {
            while file.write(&block).is_ok_and(|bytes| bytes > 0) {}
        }
        Ok(())
    }

    /// There is room again.
    pub(crate) fn free(&self) -> Result<()> {
        fs::remove_file(self.filling()).context("free the disk")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = unmount(&self.0, UnmountFlags::DETACH);
    }
}
