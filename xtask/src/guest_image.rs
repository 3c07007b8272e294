//! What the microVMs of the VM tiers boot: the kernel that runs the tier, a shell, and the modules
//! of that kernel for virtio.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::initramfs::Initramfs;
use crate::kernels::Kernel;
use crate::workspace::Workspace;

/// Each before what needs it; Debian 13's kernel has some of them built in.
const MODULES: [&str; 6] = [
    "virtio",
    "virtio_ring",
    "virtio_mmio",
    "virtio_blk",
    "virtio_console",
    "virtio-rng",
];

/// Builds it; the folder with `kernel` and `initramfs`.
pub(crate) fn build(workspace: &Workspace, kernel: Kernel) -> Result<PathBuf> {
    let folder = workspace.vm().join(format!("guest-{kernel}"));
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let image = kernel.image(workspace)?;
    fs::copy(&image, folder.join("kernel"))
        .with_context(|| format!("cannot copy {}", image.display()))?;
    let mut initramfs = Initramfs::default();
    initramfs.add_busybox()?;
    for mounted in ["/dev", "/proc", "/sys"] {
        initramfs.add_folder(Path::new(mounted))?;
    }
    let script = workspace.root().join("runtime/vmm/tests/guest.sh");
    initramfs.add(&script, Path::new("/init.sh"))?;
    let modules = kernel.modules(workspace, &MODULES)?;
    for (nr, module) in modules.iter().enumerate() {
        let place = format!("/lib/modules/{nr:02}.ko");
        initramfs.add(module, Path::new(&place))?;
    }
    initramfs.write(&folder.join("initramfs"))?;
    Ok(folder)
}
