//! What is at `/` in the sandbox: layers, and above them what it may write.

use std::ffi::CString;
use std::fmt::Write as _;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use hearth_runtime::sandbox::start::Root;
use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, mount, mount_move, mount_remount, unmount};
use rustix::process::{chdir, pivot_root};

use super::fault::{At as _, Fault};
use super::skeleton::{PLAIN, Skeleton};
use super::steps::Steps;

/// The kernel takes a page of mount options; a path of `/proc/self/fd` is 20 bytes at most.
const MAX_LAYERS: usize = 128;

impl Skeleton {
    /// Makes the function's root of the skeleton, and this process's own. The node's is gone.
    pub(super) fn enter(self, root: &Root, steps: &mut Steps) -> Result<(), Fault> {
        let layers = self.open(root).at("opening the layers")?;
        steps.done("layers");
        limit(root.writable_bytes).at("limiting the writable layer")?;
        overlay(&layers).at("mounting the layers with overlayfs")?;
        steps.done("overlay");
        // What is in the skeleton moves with all that is mounted on it. In the new root these are
        // directories of the writable layer, whatever the layers have.
        mount_move("/proc", "/root/proc").at("moving /proc into the new root")?;
        mount_move("/dev", "/root/dev").at("moving /dev into the new root")?;
        steps.done("mounts");
        // No descriptor may lead out.
        drop((layers, self.host));
        chdir("/root").at("changing to the new root")?;
        pivot_root(".", ".").at("changing the root")?;
        // The old root is on top of the new one now.
        unmount(".", UnmountFlags::DETACH).at("leaving the old root")?;
        chdir("/").at("changing to the new root")?;
        steps.done("root");
        Ok(())
    }

    fn open(&self, root: &Root) -> io::Result<Vec<OwnedFd>> {
        let count = root.layers.len();
        if count == 0 || count > MAX_LAYERS {
            let message = format!("layers: there are {count}; there must be 1 to {MAX_LAYERS}");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        let open = |layer: &PathBuf| open_layer(self.host.as_fd(), layer);
        root.layers.iter().map(open).collect()
    }
}

/// What the node has at an absolute path that no link is part of.
fn open_layer(host: impl AsFd, layer: &Path) -> io::Result<OwnedFd> {
    let named = |error: io::Error| {
        let hint = match error.raw_os_error() {
            Some(libc::ELOOP) => "; name it by a path without links",
            _ => "",
        };
        let message = format!("layer {}: {error}{hint}", layer.display());
        io::Error::new(error.kind(), message)
    };
    let Ok(beneath) = layer.strip_prefix("/") else {
        return Err(named(io::Error::other("not an absolute path")));
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    openat2(
        host,
        Path::new(".").join(beneath),
        flags,
        Mode::empty(),
        resolve,
    )
    .map_err(|error| named(error.into()))
}

/// Of bytes and of files, a page each.
fn limit(writable_bytes: u64) -> rustix::io::Result<()> {
    // To a tmpfs zero is without limit.
    let bytes = writable_bytes.max(4096);
    let files = (bytes / 4096).max(1024);
    let options = format!("size={bytes},nr_inodes={files}");
    mount_remount("/writable", PLAIN, options)
}

/// By descriptors: what a path holds need not be quoted, and is not told inside. No feature of
/// overlayfs that believes what a layer's extended attributes say is on.
fn overlay(layers: &[OwnedFd]) -> rustix::io::Result<()> {
    let mut options = String::from(
        "redirect_dir=nofollow,index=off,metacopy=off,xino=off,\
         upperdir=/writable/upper,workdir=/writable/work,lowerdir=",
    );
    // For overlayfs the first one is on top.
    for (index, layer) in layers.iter().rev().enumerate() {
        let colon = if index == 0 { "" } else { ":" };
        let _ = write!(options, "{colon}/proc/self/fd/{}", layer.as_raw_fd());
    }
    let options = CString::new(options).map_err(|_| Errno::INVAL)?;
    mount("overlay", "/root", "overlay", PLAIN, &*options)
}
