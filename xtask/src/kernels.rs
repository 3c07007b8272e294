//! Debian's kernels for the VM tiers, fetched and unpacked without touching the system.
//!
//! Each suite gets a package list of its own below `target/vm/apt`, from the
//! mirror that this machine's apt already uses and checked against Debian's keys.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;

use crate::program;
use crate::workspace::Workspace;

/// Debian's archive keys, of the package `debian-archive-keyring`.
pub(crate) const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Where Debian's packages come from on a machine whose apt names no mirror of Debian.
const PUBLIC_MIRROR: &str = "http://deb.debian.org/debian";

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
            Self::V6_1 => "bookworm",
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
                } else if path.extension().is_some_and(|end| end == "ko") {
                    found.insert(path.file_stem().unwrap_or_default().to_owned(), path);
                }
            }
        }
        Ok(names
            .iter()
            .filter_map(|name| found.remove(OsStr::new(name)))
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

/// Unpacks one package of a suite into a folder of its own.
pub(crate) fn download(
    workspace: &Workspace,
    suite: &str,
    package: &str,
    folder: &Path,
) -> Result<()> {
    Apt::of(workspace, suite)?.unpack(package, folder)
}

/// One suite's own sources, lists and cache.
struct Apt {
    folder: PathBuf,
}

impl Apt {
    /// The suite's lists, fetched anew: an old list names packages that mirrors no longer hold.
    fn of(workspace: &Workspace, suite: &str) -> Result<Self> {
        if !Path::new(KEYRING).exists() {
            bail!("cannot check Debian's packages without {KEYRING} (debian-archive-keyring)");
        }
        let apt = Self {
            folder: workspace.vm().join("apt").join(suite),
        };
        for part in ["lists/partial", "cache/archives/partial"] {
            let folder = apt.folder.join(part);
            fs::create_dir_all(&folder)
                .with_context(|| format!("cannot make {}", folder.display()))?;
        }
        // Nothing counts as installed, nothing else as a source.
        fs::write(apt.folder.join("status"), "")?;
        let source = format!(
            "deb [arch=amd64 signed-by={KEYRING}] {} {suite} main\n",
            mirror()
        );
        fs::write(apt.folder.join("sources.list"), source)?;
        program::run(apt.command("apt-get").args(["--quiet=2", "update"]))?;
        Ok(apt)
    }

    fn command(&self, name: &str) -> Command {
        let mut command = program::clean(name);
        command.current_dir(&self.folder);
        for (option, value) in [
            ("Dir::Etc::sourcelist", self.folder.join("sources.list")),
            ("Dir::Etc::sourceparts", "-".into()),
            ("Dir::State", self.folder.clone()),
            ("Dir::State::lists", self.folder.join("lists")),
            ("Dir::State::status", self.folder.join("status")),
            ("Dir::Cache", self.folder.join("cache")),
        ] {
            command
                .arg("-o")
                .arg(format!("{option}={}", value.display()));
        }
        // apt's own user may not reach this folder; descriptions are of no use here.
        command.args([
            "-o",
            "APT::Sandbox::User=root",
            "-o",
            "Acquire::Languages=none",
        ]);
        command.args([
            "-o",
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false",
        ]);
        command
    }

    fn unpack(&self, package: &str, folder: &Path) -> Result<()> {
        let debs = || -> Result<Vec<PathBuf>> {
            let files = fs::read_dir(&self.folder)?.filter_map(|file| Some(file.ok()?.path()));
            Ok(files
                .filter(|path| path.extension().is_some_and(|end| end == "deb"))
                .collect())
        };
        for stale in debs()? {
            fs::remove_file(stale)?;
        }
        program::run(
            self.command("apt-get")
                .args(["--quiet=2", "download", package]),
        )?;
        let [deb] = &debs()?[..] else {
            bail!(
                "apt-get download {package} left no package in {}",
                self.folder.display()
            );
        };
        // Unpacked aside and renamed, so that an interrupted run never looks complete.
        let aside = folder.with_extension("partial");
        let _ = fs::remove_dir_all(&aside);
        program::run(
            program::clean("dpkg-deb")
                .arg("--extract")
                .arg(deb)
                .arg(&aside),
        )?;
        let _ = fs::remove_dir_all(folder);
        fs::rename(&aside, folder).with_context(|| {
            format!("cannot rename {} to {}", aside.display(), folder.display())
        })?;
        fs::remove_file(deb)?;
        Ok(())
    }
}

/// The mirror of Debian's main archive in this machine's own sources.
fn mirror() -> String {
    program::output(program::clean("apt-get").args([
        "indextargets",
        "--format",
        "$(ORIGIN) $(LABEL) $(REPO_URI)",
        "Created-By: Packages",
    ]))
    .ok()
    .and_then(|said| main_archive(&said).map(str::to_owned))
    .unwrap_or_else(|| PUBLIC_MIRROR.to_owned())
}

/// The first address whose origin and label are Debian's (security updates have another label).
fn main_archive(said: &str) -> Option<&str> {
    said.lines()
        .find_map(|line| line.strip_prefix("Debian Debian "))
}

#[cfg(test)]
mod tests {
    use super::{image_package, main_archive};

    #[test]
    fn the_meta_package_names_its_kernel() {
        let said = "linux-image-cloud-amd64\n  Depends: linux-image-6.1.0-56-cloud-amd64\n";
        assert_eq!(
            image_package(said),
            Some("linux-image-6.1.0-56-cloud-amd64")
        );
        assert_eq!(image_package("linux-image-cloud-amd64\n"), None);
    }

    #[test]
    fn the_mirror_is_that_of_the_main_archive() {
        let said = "cloud-sdk cloud-sdk https://packages.example/apt/\n\
                    Debian Debian-Security http://mirror.example/debian-security/\n\
                    Debian Debian http://mirror.example/debian/\n";
        assert_eq!(main_archive(said), Some("http://mirror.example/debian/"));
        assert_eq!(
            main_archive("Ubuntu Ubuntu http://mirror.example/ubuntu/\n"),
            None
        );
    }
}
