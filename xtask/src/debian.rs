//! Debian's packages, beside the system: a package list of its own for each suite.
//!
//! Below `target/vm/apt`, from the mirror that this machine's apt already uses and checked
//! against Debian's keys.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::program;
use crate::workspace::Workspace;

/// Debian's archive keys, of the package `debian-archive-keyring`.
pub(crate) const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// The suite of the machines that hearth is built on.
pub(crate) const HOST_SUITE: &str = "bookworm";

/// Where Debian's packages come from on a machine whose apt names no mirror of Debian.
const PUBLIC_MIRROR: &str = "http://deb.debian.org/debian";

/// The version of a package that is installed here.
pub(crate) fn installed(package: &str) -> Option<String> {
    let said = program::output(program::clean("dpkg-query").args([
        "--show",
        "--showformat=${db:Status-Status} ${Version}",
        package,
    ]));
    Some(said.ok()?.strip_prefix("installed ")?.to_owned())
}

fn folder_of(workspace: &Workspace, suite: &str) -> PathBuf {
    workspace.vm().join("apt").join(suite)
}

/// Writes the one line by which apt finds `suite`; returns the file.
pub(crate) fn source_list(workspace: &Workspace, suite: &str) -> Result<PathBuf> {
    let folder = folder_of(workspace, suite);
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let list = folder.join("sources.list");
    let mirror = mirror();
    let line = format!("deb [arch=amd64 signed-by={KEYRING}] {mirror} {suite} main\n");
    fs::write(&list, line).with_context(|| format!("cannot write {}", list.display()))?;
    Ok(list)
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
pub(crate) struct Apt {
    folder: PathBuf,
}

impl Apt {
    /// The suite's lists, fetched anew: an old list names packages that mirrors no longer hold.
    pub(crate) fn of(workspace: &Workspace, suite: &str) -> Result<Self> {
        if !Path::new(KEYRING).exists() {
            bail!("cannot check Debian's packages without {KEYRING} (debian-archive-keyring)");
        }
        let apt = Self {
            folder: folder_of(workspace, suite),
        };
        for part in ["lists/partial", "cache/archives/partial"] {
            let folder = apt.folder.join(part);
            fs::create_dir_all(&folder)
                .with_context(|| format!("cannot make {}", folder.display()))?;
        }
        // Nothing counts as installed, nothing else as a source.
        fs::write(apt.folder.join("status"), "")?;
        source_list(workspace, suite)?;
        program::run(apt.command("apt-get").args(["--quiet=2", "update"]))?;
        Ok(apt)
    }

    pub(crate) fn command(&self, name: &str) -> Command {
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

    pub(crate) fn unpack(&self, package: &str, folder: &Path) -> Result<()> {
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
    use super::main_archive;

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
