//! Builds the kernel object that the agent embeds.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::workspace::Workspace;
use crate::{program, toolchain};

const TARGET: &str = "bpfel-unknown-none";

/// BTF so that the loader finds types, v3 for compare-and-exchange on shared cells.
const RUSTFLAGS: &[&str] = &[
    "-Cdebuginfo=2",
    "-Cpanic=abort",
    "-Ctarget-cpu=v3",
    "-Clink-arg=--btf",
];

/// Brings `target/bpf/hearth.bpf.o` up to date and returns its path.
///
/// Does nothing if sources, flags and toolchain are those of the object that is there.
pub(crate) fn build(workspace: &Workspace) -> Result<PathBuf> {
    let (rust, linker) = toolchain::require(workspace)?;
    let object = workspace.bpf_object();
    let stamp_file = workspace.bpf().join("hearth.bpf.stamp");
    let stamp = stamp(&workspace.ebpf(), &rust.version()?)?;
    let is_fresh =
        object.exists() && std::fs::read_to_string(&stamp_file).is_ok_and(|found| found == stamp);
    if is_fresh {
        return Ok(object);
    }

    eprintln!("building the kernel object with {}", rust.version()?);
    let target_dir = workspace.bpf().join("build");
    let mut flags: Vec<String> = RUSTFLAGS.iter().map(|&flag| flag.to_owned()).collect();
    flags.push(format!("-Clinker={}", linker.display()));
    program::run(
        rust.cargo()
            .current_dir(workspace.ebpf())
            .args(["build", "--release", "-Zbuild-std=core", "--target", TARGET])
            .arg("--target-dir")
            .arg(&target_dir)
            .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}")),
    )?;
    let built = target_dir.join(TARGET).join("release/hearth");
    std::fs::copy(&built, &object)
        .with_context(|| format!("cannot copy {} to {}", built.display(), object.display()))?;
    std::fs::write(&stamp_file, stamp)
        .with_context(|| format!("cannot write {}", stamp_file.display()))?;
    Ok(object)
}

/// Changes whenever the object would: with a source's path or content, a flag, the compiler.
fn stamp(sources: &Path, compiler: &str) -> Result<String> {
    let mut files = Vec::new();
    list(sources, &mut files)?;
    files.sort();
    // Only ever compared with one made by the same xtask, so a hasher that may
    // change with the standard library costs at most one build.
    let mut hasher = DefaultHasher::new();
    (compiler, toolchain::BPF_LINKER, RUSTFLAGS).hash(&mut hasher);
    for file in files {
        let content =
            std::fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
        (file, content).hash(&mut hasher);
    }
    Ok(format!("{:016x}\n", hasher.finish()))
}

fn list(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        entries => entries.with_context(|| format!("cannot list {}", folder.display()))?,
    };
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            if path.file_name().is_some_and(|name| name != "target") {
                list(&path, files)?;
            }
        } else {
            files.push(path);
        }
    }
    Ok(())
}
