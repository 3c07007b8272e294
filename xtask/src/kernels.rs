//! Debian's kernels for the VM tiers, fetched and unpacked without touching the system.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::ValueEnum;

use crate::debian::{Apt, HOST_SUITE};
use crate::program;
use crate::workspace::Workspace;

/// A kernel that the VM boots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kernel {
    /// Debian 12's.
    #[value(name = "6.1")]
    V6_1,
    /// Debian 13's.
    #[value(name = "6.12")]
    V6_12,
}

impl fmt::Display for Kernel {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::V6_1 => "6.1",
            Self::V6_12 => "6.12",
        })
    }
}

impl Kernel {
    /// Oldest first.
    pub(crate) const ALL: [Self; 2] = [Self::V6_1, Self::V6_12];

    fn suite(self) -> &'static str {
        match self {
            Self::V6_1 => HOST_SUITE,
            Self::V6_12 => "trixie",
        }
    }

    fn folder(self, workspace: &Workspace) -> PathBuf {
        workspace.vm().join(format!("kernel-{self}"))
    }

    /// The bootable image.
    pub(crate) fn image(self, workspace: &Workspace) -> Result<PathBuf> {
        let boot = self.folder(workspace).join("boot");
        fs::read_dir(&boot)
            .ok()
            .and_then(|mut files| {
                files.find_map(|file| {
                    let path = file.ok()?.path();
                    path.file_name()?
                        .to_str()?
                        .starts_with("vmlinuz-")
                        .then_some(path)
                })
            })
            .with_context(|| {
                format!(
                    "no kernel in {}; `cargo xtask setup --for vm` fetches it",
                    boot.display()
                )
            })
    }

    /// The files of these modules, in this order; what is built into this kernel has none.
    pub(crate) fn modules(self, workspace: &Workspace, names: &[&str]) -> Result<Vec<PathBuf>> {
        let mut found = BTreeMap::new();
        let mut folders = vec![self.folder(workspace)];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder)? {
                let entry = entry?;
                let path = entry.path();
                if entry.file_type()?.is_dir() {
                    folders.push(path);
                    continue;
                }
                let file = entry.file_name();
                let file = file.to_string_lossy();
                let (name, rest) = file.split_once('.').unwrap_or((&file, ""));
                if !names.contains(&name) || !matches!(rest, "ko" | "ko.xz") {
                    continue;
                }
                let plain = path.with_file_name(format!("{name}.ko"));
                if !plain.exists() {
                    program::run(
                        program::clean("xz")
                            .args(["--decompress", "--keep"])
                            .arg(&path),
                    )?;
                }
                found.insert(name.to_owned(), plain);
            }
        }
        Ok(names
            .iter()
            .filter_map(|&name| found.remove(name))
            .collect())
    }

    /// Fetches the kernel that the suite's meta package points to.
    pub(crate) fn fetch(self, workspace: &Workspace) -> Result<()> {
        let apt = Apt::of(workspace, self.suite())?;
        let meta = "linux-image-cloud-amd64";
        let said = program::output(apt.command("apt-cache").args(["depends", meta]))?;
        let package = image_package(&said)
            .with_context(|| format!("{meta} of {} names no kernel:\n{said}", self.suite()))?;
        apt.unpack(package, &self.folder(workspace))
    }
}

/// The kernel that a meta package depends on, from what `apt-cache depends` says.
fn image_package(said: &str) -> Option<&str> {
    said.lines()
        .filter_map(|line| line.trim().strip_prefix("Depends: "))
        .find(|package| package.starts_with("linux-image-"))
}

#[cfg(test)]
mod tests {
    use super::image_package;

    #[test]
    fn the_meta_package_names_its_kernel() {
        let said = "linux-image-cloud-amd64\n  Depends: linux-image-6.1.0-56-cloud-amd64\n";
        assert_eq!(
            image_package(said),
            Some("linux-image-6.1.0-56-cloud-amd64")
        );
        assert_eq!(image_package("linux-image-cloud-amd64\n"), None);
    }
}
