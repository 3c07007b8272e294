//! A small disk that the agent writes to, full at times.

use std::ffi::CString;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

/// A file system of its own, unmounted when dropped.
pub(crate) struct Disk(PathBuf);

impl Disk {
    /// One of so many bytes at this directory.
    pub(crate) fn mount(at: &Path, bytes: u64) -> Result<Self> {
        let options = CString::new(format!("size={bytes},mode=0700"))?;
        mount("hearth", at, "tmpfs", MountFlags::empty(), Some(&*options))
            .context("mount a small disk")?;
        Ok(Self(at.to_owned()))
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
