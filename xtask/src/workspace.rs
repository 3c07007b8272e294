//! Where things are: the sources, and what set-up and builds leave under `target/`.

use std::path::{Path, PathBuf};

/// The checkout that this `xtask` belongs to.
#[derive(Debug, Clone)]
pub(crate) struct Workspace {
    root: PathBuf,
}

impl Workspace {
    /// The workspace that compiled this program.
    pub(crate) fn locate() -> Self {
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
        let root = manifest.parent().unwrap_or(manifest);
        Self {
            root: root.to_path_buf(),
        }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Sources of the kernel side.
    pub(crate) fn ebpf(&self) -> PathBuf {
        self.root.join("ebpf-programs")
    }

    /// What set-up fetched or built for this workspace alone.
    pub(crate) fn tools(&self) -> PathBuf {
        self.root.join("target/tools")
    }

    /// The kernel object and all that its build leaves.
    pub(crate) fn bpf(&self) -> PathBuf {
        self.root.join("target/bpf")
    }

    /// The kernel object that the agent embeds.
    pub(crate) fn bpf_object(&self) -> PathBuf {
        self.bpf().join("hearth.bpf.o")
    }

    /// Kernels and images of the VM tiers, and what comes back from them.
    pub(crate) fn vm(&self) -> PathBuf {
        self.root.join("target/vm")
    }
}
