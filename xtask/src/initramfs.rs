//! The root file system of the VM: a list of files by their place in the VM,
//! written as the archive that a kernel unpacks.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use cpio::newc::{Builder, ModeFileType, trailer};

use crate::program;

/// What lies at one place in the VM.
#[derive(Debug)]
enum Content {
    /// A copy of the host's file.
    Host(PathBuf),
    /// These bytes, readable by all.
    Bytes(Vec<u8>),
    /// A symbolic link to this path.
    Link(&'static str),
}

/// Files by their absolute path in the VM.
#[derive(Debug, Default)]
pub(crate) struct Initramfs {
    files: BTreeMap<PathBuf, Content>,
    folders: BTreeSet<PathBuf>,
}

impl Initramfs {
    /// Puts a file of the host, or all files of a folder, at this place; an
    /// executable brings the shared libraries that it needs, at their own places.
    pub(crate) fn add(&mut self, host: &Path, guest: &Path) -> Result<()> {
        let meta = fs::metadata(host).with_context(|| format!("cannot read {}", host.display()))?;
        if meta.is_dir() {
            self.add_folder(guest)?;
            for entry in fs::read_dir(host)? {
                let entry = entry?;
                self.add(&entry.path(), &guest.join(entry.file_name()))?;
            }
            return Ok(());
        }
        self.place(guest, Content::Host(host.to_path_buf()))?;
        if meta.permissions().mode() & 0o111 != 0 && is_elf(host)? {
            for library in libraries(host)? {
                self.place(&library, Content::Host(library.clone()))?;
            }
        }
        Ok(())
    }

    /// Puts busybox there, by the names of all that it can do.
    pub(crate) fn add_busybox(&mut self) -> Result<()> {
        const BUSYBOX: &str = "/bin/busybox";
        self.add(Path::new(BUSYBOX), Path::new(BUSYBOX))?;
        for applet in program::output(program::clean(BUSYBOX).arg("--list"))?.lines() {
            if applet != "busybox" {
                self.add_link(&format!("/bin/{applet}"), BUSYBOX)?;
            }
        }
        Ok(())
    }

    /// Puts these bytes at this place.
    pub(crate) fn add_bytes(&mut self, guest: &str, bytes: Vec<u8>) -> Result<()> {
        self.place(Path::new(guest), Content::Bytes(bytes))
    }

    /// Puts a symbolic link at this place.
    pub(crate) fn add_link(&mut self, guest: &str, target: &'static str) -> Result<()> {
        self.place(Path::new(guest), Content::Link(target))
    }

    fn place(&mut self, guest: &Path, content: Content) -> Result<()> {
        self.add_folder(guest.parent().unwrap_or(guest))?;
        self.files.insert(guest.to_path_buf(), content);
        Ok(())
    }

    /// Makes a folder and those above it.
    pub(crate) fn add_folder(&mut self, guest: &Path) -> Result<()> {
        ensure!(
            guest.is_absolute() && !guest.components().any(|part| part == Component::ParentDir),
            "{} is no place in the VM: it takes an absolute path without `..`",
            guest.display()
        );
        self.folders
            .extend(guest.ancestors().map(Path::to_path_buf));
        Ok(())
    }

    /// Writes the archive.
    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        let file = File::create(path).with_context(|| format!("cannot make {}", path.display()))?;
        let mut archive = BufWriter::new(file);
        // The kernel unpacks in this order: folders, shallow first, then what is in them.
        for folder in &self.folders {
            if let Some(name) = name_in_archive(folder)? {
                let entry = Builder::new(name)
                    .mode(0o755)
                    .set_mode_file_type(ModeFileType::Directory);
                finish(entry, &mut archive, &[])?;
            }
        }
        // Init's own output goes to the kernel's console.
        let console = Builder::new("dev/console")
            .mode(0o600)
            .rdev_major(5)
            .rdev_minor(1);
        finish(
            console.set_mode_file_type(ModeFileType::Char),
            &mut archive,
            &[],
        )?;
        for (guest, content) in &self.files {
            let Some(name) = name_in_archive(guest)? else {
                continue;
            };
            write_file(name, content, &mut archive)
                .with_context(|| format!("cannot put {name} into {}", path.display()))?;
        }
        trailer(&mut archive)?
            .flush()
            .with_context(|| format!("cannot write {}", path.display()))
    }
}

fn write_file(name: &str, content: &Content, archive: &mut impl Write) -> Result<()> {
    match content {
        Content::Host(host) => {
            let bytes =
                fs::read(host).with_context(|| format!("cannot read {}", host.display()))?;
            let mode = fs::metadata(host)?.permissions().mode() & 0o777;
            let entry = Builder::new(name)
                .mode(mode)
                .set_mode_file_type(ModeFileType::Regular);
            finish(entry, archive, &bytes)
        }
        Content::Bytes(bytes) => {
            let entry = Builder::new(name)
                .mode(0o644)
                .set_mode_file_type(ModeFileType::Regular);
            finish(entry, archive, bytes)
        }
        Content::Link(target) => {
            let entry = Builder::new(name)
                .mode(0o777)
                .set_mode_file_type(ModeFileType::Symlink);
            finish(entry, archive, target.as_bytes())
        }
    }
}

fn finish(entry: Builder, archive: &mut impl Write, content: &[u8]) -> Result<()> {
    let length = u32::try_from(content.len()).context("a file of 4 GiB or more")?;
    let mut writer = entry.write(archive, length);
    writer.write_all(content)?;
    writer.finish()?;
    Ok(())
}

/// The path without its leading slash; `None` for the root itself.
fn name_in_archive(guest: &Path) -> Result<Option<&str>> {
    let name = guest.strip_prefix("/")?.to_str();
    let name = name.with_context(|| format!("{} is not UTF-8", guest.display()))?;
    Ok((!name.is_empty()).then_some(name))
}

fn is_elf(path: &Path) -> Result<bool> {
    let mut magic = [0; 4];
    match io::Read::read_exact(&mut File::open(path)?, &mut magic) {
        Ok(()) => Ok(magic == *b"\x7fELF"),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

/// The shared libraries that the loader would map for this executable, its loader included.
fn libraries(executable: &Path) -> Result<Vec<PathBuf>> {
    let mut ldd = program::clean("ldd");
    let output = ldd.arg(executable).output().context("cannot start ldd")?;
    if !output.status.success() {
        // Its way of saying that an executable is static.
        return Ok(Vec::new());
    }
    parse_ldd(&String::from_utf8_lossy(&output.stdout))
        .with_context(|| format!("{} cannot run in the VM", executable.display()))
}

/// `name => /path (address)`, `/path (address)`, or `name (address)` for what the kernel maps.
fn parse_ldd(said: &str) -> Result<Vec<PathBuf>> {
    let mut libraries = Vec::new();
    for line in said.lines() {
        let (name, found) = line
            .trim()
            .split_once(" => ")
            .unwrap_or((line.trim(), line.trim()));
        if found.starts_with("not found") {
            bail!("its library {name} is not on this machine");
        }
        if found.starts_with('/') {
            let path = found.split_once(" (").map_or(found, |(path, _)| path);
            libraries.push(PathBuf::from(path));
        }
    }
    Ok(libraries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loader_and_every_library_are_found() -> Result<()> {
        let said = "\tlinux-vdso.so.1 (0x00007f)\n\
                    \tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        let expected = [
            "/lib/x86_64-linux-gnu/libc.so.6",
            "/lib64/ld-linux-x86-64.so.2",
        ];
        assert_eq!(parse_ldd(said)?, expected.map(PathBuf::from));
        assert_eq!(parse_ldd("\tstatically linked\n")?, Vec::<PathBuf>::new());
        Ok(())
    }

    #[test]
    fn a_missing_library_is_named() {
        let error = parse_ldd("\tlibodd.so.1 => not found\n").map_err(|error| error.to_string());
        assert_eq!(
            error,
            Err("its library libodd.so.1 is not on this machine".to_owned())
        );
    }

    #[test]
    fn what_was_added_is_what_is_unpacked() -> Result<()> {
        let mut initramfs = Initramfs::default();
        initramfs.add_bytes("/a/b/c", b"hello".to_vec())?;
        initramfs.add_link("/a/l", "b/c")?;
        initramfs.add_folder(Path::new("/a/empty"))?;
        let path = std::env::temp_dir().join(format!("hearth-initramfs-{}", std::process::id()));
        initramfs.write(&path)?;
        let mut entries = Vec::new();
        let mut archive = fs::read(&path)?;
        fs::remove_file(&path)?;
        let mut rest = io::Cursor::new(&mut archive);
        loop {
            let mut entry = cpio::newc::Reader::new(rest)?;
            if entry.entry().is_trailer() {
                break;
            }
            let mut content = String::new();
            io::Read::read_to_string(&mut entry, &mut content)?;
            entries.push((
                entry.entry().name().to_owned(),
                entry.entry().mode(),
                content,
            ));
            rest = entry.finish()?;
        }
        let expected = [
            ("a", 0o040_755, ""),
            ("a/b", 0o040_755, ""),
            ("a/empty", 0o040_755, ""),
            ("dev/console", 0o020_600, ""),
            ("a/b/c", 0o100_644, "hello"),
            ("a/l", 0o120_777, "b/c"),
        ];
        let expected = expected.map(|(name, mode, content)| (name.into(), mode, content.into()));
        assert_eq!(entries, expected);
        Ok(())
    }

    #[test]
    fn a_place_outside_of_the_vm_is_refused() {
        let mut initramfs = Initramfs::default();
        assert!(initramfs.add_bytes("relative", Vec::new()).is_err());
        assert!(initramfs.add_bytes("/a/../../b", Vec::new()).is_err());
    }
}
