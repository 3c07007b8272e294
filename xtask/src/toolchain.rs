//! The compiler and linker of the kernel side.
//!
//! `core` for the BPF target has to be built from its sources, which takes an
//! unstable cargo flag: a rustup nightly with `rust-src` has both; Debian's
//! `rustc-web` has the sources and is told to accept the flag.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};

use crate::program;
use crate::workspace::Workspace;

/// The release of bpf-linker that set-up installs.
pub(crate) const BPF_LINKER: &str = "0.13.0";

/// Where Debian's `rustc-web` and `cargo-web` put their programs.
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
const DEBIAN_CARGO: &str = "/usr/bin/cargo";

/// Oldest Debian compiler that knows this workspace's edition and `-Zbuild-std` as used here.
const DEBIAN_OLDEST: (u32, u32) = (1, 95);

/// A Rust toolchain that can build `core` for the BPF target.
#[derive(Debug)]
pub(crate) enum Rust {
    /// A rustup toolchain, by name.
    Rustup(String),
    /// Debian's packages, in `/usr/bin`.
    Debian,
}

impl Rust {
    /// The best one on this machine: a rustup nightly with `rust-src`, else Debian's.
    pub(crate) fn find() -> Option<Self> {
        rustup_nightly().or_else(debian)
    }

    /// Cargo of this toolchain, free of the toolchain that runs `xtask`.
    pub(crate) fn cargo(&self) -> Command {
        match self {
            Self::Rustup(name) => {
                let mut cargo = program::clean("rustup");
                cargo.args(["run", name, "cargo"]);
                cargo
            }
            Self::Debian => {
                let mut cargo = program::clean(DEBIAN_CARGO);
                cargo.env("RUSTC", DEBIAN_RUSTC).env("RUSTC_BOOTSTRAP", "1");
                cargo
            }
        }
    }

    /// What the compiler calls itself.
    pub(crate) fn version(&self) -> Result<String> {
        let mut rustc = match self {
            Self::Rustup(name) => {
                let mut rustc = program::clean("rustup");
                rustc.args(["run", name, "rustc"]);
                rustc
            }
            Self::Debian => program::clean(DEBIAN_RUSTC),
        };
        Ok(program::output(rustc.arg("-V"))?.trim().to_owned())
    }
}

fn rustup_nightly() -> Option<Rust> {
    let home = std::env::var_os("RUSTUP_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".rustup")))?;
    let mut names: Vec<String> = std::fs::read_dir(home.join("toolchains"))
        .ok()?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.starts_with("nightly"))
        .filter(|name| has_core_sources(&home.join("toolchains").join(name)))
        .collect();
    names.sort();
    names.pop().map(Rust::Rustup)
}

fn debian() -> Option<Rust> {
    if !Path::new(DEBIAN_CARGO).exists() || !has_core_sources(Path::new("/usr")) {
        return None;
    }
    let version = Rust::Debian.version().ok()?;
    (release(&version)? >= DEBIAN_OLDEST).then_some(Rust::Debian)
}

fn has_core_sources(sysroot: &Path) -> bool {
    ["lib/rustlib/src/rust/library/core/src/lib.rs"]
        .iter()
        .any(|file| sysroot.join(file).exists())
}

/// `(1, 96)` of `rustc 1.96.0 (...)`.
fn release(version: &str) -> Option<(u32, u32)> {
    let mut numbers = version.split_whitespace().nth(1)?.split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// The bpf-linker that set-up installed, if it is the release that the build asks for.
pub(crate) fn bpf_linker(workspace: &Workspace) -> Option<PathBuf> {
    let linker = workspace.tools().join("bin/bpf-linker");
    let version = program::output(program::clean(&linker).arg("--version")).ok()?;
    (version.split_whitespace().nth(1) == Some(BPF_LINKER)).then_some(linker)
}

/// Both halves, or the command that brings them.
pub(crate) fn require(workspace: &Workspace) -> Result<(Rust, PathBuf)> {
    match (Rust::find(), bpf_linker(workspace)) {
        (Some(rust), Some(linker)) => Ok((rust, linker)),
        (None, _) => bail!(
            "no Rust toolchain here can build the kernel side: it takes a rustup nightly with \
             rust-src, or Debian's rustc-web, cargo-web and rust-web-src; \
             `cargo xtask setup --for build` installs them"
        ),
        (_, None) => bail!(
            "bpf-linker {BPF_LINKER} is not in {}; `cargo xtask setup --for build` puts it there",
            workspace.tools().join("bin").display()
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::release;

    #[test]
    fn a_release_is_read_from_what_rustc_says() {
        assert_eq!(
            release("rustc 1.96.0 (ac68faa20 2026-05-25) (built from a source tarball)"),
            Some((1, 96))
        );
        assert_eq!(
            release("rustc 1.97.0-nightly (e50aa6fba 2026-05-19)"),
            Some((1, 97))
        );
        assert_eq!(release("gcc"), None);
    }
}
