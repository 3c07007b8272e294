//! Layers of the functions that tests and benches deploy: what is at `/` for each language.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::agent::Profile;
use crate::debian::{self, Apt};
use crate::workspace::Workspace;
use crate::{program, sandboxes};

/// The public runtime for Python, as its users install it.
pub(crate) const PYTHON_RUNTIME: &str = "awslambdaric==4.2.2";

/// Debian's Python, and what it and the runtime link to.
const PYTHON: &[&str] = &[
    "libc6",
    "libgcc-s1",
    "libstdc++6",
    "zlib1g",
    "libexpat1",
    "libssl3",
    "libffi8",
    "libbz2-1.0",
    "liblzma5",
    "python3.11-minimal",
    "libpython3.11-minimal",
    "libpython3.11-stdlib",
];

/// What the shell function calls.
const APPLETS: &[&str] = &[
    "sh", "cat", "echo", "grep", "mkdir", "mount", "sed", "sleep", "wget",
];

/// Where the layers are.
pub(crate) fn folder(workspace: &Workspace) -> PathBuf {
    workspace.root().join("target/functions")
}

fn python(workspace: &Workspace) -> PathBuf {
    folder(workspace).join("python")
}

/// Whether set-up has made the layers that come from elsewhere.
pub(crate) fn are_there(workspace: &Workspace) -> bool {
    python(workspace).exists()
}

/// Fetches Debian's Python and the public runtime for it into a layer, as a whole or not at all.
pub(crate) fn fetch(workspace: &Workspace, pip: &Path) -> Result<()> {
    let layer = python(workspace);
    let aside = layer.with_extension("partial");
    let _ = fs::remove_dir_all(&aside);
    fs::create_dir_all(&aside).with_context(|| format!("cannot make {}", aside.display()))?;
    let apt = Apt::of(workspace, debian::HOST_SUITE)?;
    for package in PYTHON {
        let unpacked = folder(workspace).join("package");
        apt.unpack(package, &unpacked)?;
        // `cp` merges folders, which a rename does not.
        program::run(
            program::clean("cp")
                .args(["--archive", "--no-target-directory"])
                .args([&unpacked, &aside]),
        )?;
        fs::remove_dir_all(&unpacked)?;
    }
    program::run(
        program::clean(pip)
            .args([
                "install",
                "--quiet",
                "--no-compile",
                "--disable-pip-version-check",
            ])
            .args(["--only-binary=:all:", "--python-version=3.11"])
            .args(["--platform=manylinux2014_x86_64", "--target"])
            .arg(aside.join("opt/python"))
            .arg(PYTHON_RUNTIME),
    )?;
    fs::rename(&aside, &layer).with_context(|| format!("cannot make {}", layer.display()))
}

/// Copies a file into a layer.
fn put(workspace: &Workspace, layer: &str, from: &Path, to: &str) -> Result<()> {
    let to = folder(workspace).join(layer).join(to);
    let parent = to.parent().unwrap_or(&to);
    fs::create_dir_all(parent)
        .and_then(|()| fs::copy(from, &to).map(|_| ()))
        .with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))
}

/// Brings the layer of the function in Rust up to date, which needs nothing else.
pub(crate) fn build_rust(workspace: &Workspace) -> Result<()> {
    let rust = sandboxes::build_static(workspace, "hearth-functions", Profile::Release)?;
    put(workspace, "rust", &rust, "bootstrap")
}

/// Brings the layers that are made here up to date.
pub(crate) fn build(workspace: &Workspace) -> Result<()> {
    build_rust(workspace)?;
    let sources = workspace.root().join("tests/functions");
    let into = |layer: &str, from: &Path, to: &str| put(workspace, layer, from, to);
    into(
        "python-function",
        &sources.join("python/function.py"),
        "var/task/function.py",
    )?;
    into("shell", &sources.join("shell/bootstrap"), "bootstrap")?;
    into("shell", Path::new("/bin/busybox"), "bin/busybox")?;
    for applet in APPLETS {
        let link = folder(workspace).join("shell/bin").join(applet);
        if link.symlink_metadata().is_err() {
            symlink("busybox", &link).with_context(|| format!("cannot link {}", link.display()))?;
        }
    }
    Ok(())
}

/// All of them in one archive, for a VM: links stay what they are.
pub(crate) fn pack(workspace: &Workspace) -> Result<PathBuf> {
    let archive = workspace.vm().join("functions.tar");
    program::run(
        program::clean("tar")
            .args(["--create", "--file"])
            .arg(&archive)
            .arg("--directory")
            .arg(folder(workspace))
            .arg("."),
    )?;
    Ok(archive)
}
