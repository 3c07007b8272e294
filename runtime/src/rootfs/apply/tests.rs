//! Real archives, layers over layers, and what hostile ones try.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path as StdPath, PathBuf};
use std::process::Command;

use tar::Header;

use super::*;
use crate::rootfs::NameProblem;

struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("root")).unwrap();
        Self { folder }
    }

    fn root(&self) -> PathBuf {
        self.folder.path().join("root")
    }

    fn apply(&self, layer: &[u8]) -> Result<Applied, LayerError> {
        self.apply_within(layer, Limits::default())
    }

    fn apply_within(&self, layer: &[u8], limits: Limits) -> Result<Applied, LayerError> {
        let root = fs::File::open(self.root()).unwrap();
        super::apply(layer, root.into(), limits)
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.root().join(path)).unwrap()
    }

    fn has(&self, path: &str) -> bool {
        self.root().join(path).symlink_metadata().is_ok()
    }
}

/// One entry as bytes, its path and link as they are: the `tar` crate would refuse some.
fn entry(kind: EntryType, path: &str, link: &str, content: &[u8]) -> Vec<u8> {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(0o4755);
    header.set_size(content.len() as u64);
    let raw = header.as_old_mut();
    raw.name[..path.len()].copy_from_slice(path.as_bytes());
    raw.linkname[..link.len()].copy_from_slice(link.as_bytes());
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend_from_slice(content);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

fn file(path: &str, content: &str) -> Vec<u8> {
    entry(EntryType::Regular, path, "", content.as_bytes())
}

fn layer(entries: &[Vec<u8>]) -> Vec<u8> {
    [entries.concat(), vec![0; 1024]].concat()
}

/// Path, mode, and content or target of all that is below `root`.
fn listing(root: &StdPath) -> Vec<(PathBuf, u32, Vec<u8>)> {
    let mut all = Vec::new();
    let mut directories = vec![root.to_path_buf()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let status = path.symlink_metadata().unwrap();
            let content = if status.is_dir() {
                directories.push(path.clone());
                Vec::new()
            } else if status.is_symlink() {
                let target = path.read_link().unwrap();
                target.as_os_str().as_bytes().to_vec()
            } else {
                fs::read(&path).unwrap()
            };
            all.push((
                path.strip_prefix(root).unwrap().to_path_buf(),
                status.mode(),
                content,
            ));
        }
    }
    all.sort();
    all
}

#[test]
fn what_gnu_tar_packs_comes_out_the_same() {
    for format in ["gnu", "pax", "ustar", "v7"] {
        for compress in [false, true] {
            let place = Place::new();
            let from = place.folder.path().join("from");
            // Only the newer formats have names over 100 bytes.
            let times = if matches!(format, "gnu" | "pax") {
                9
            } else {
                1
            };
            let long = from.join("very-long-name".repeat(times));
            fs::create_dir_all(from.join("usr/bin")).unwrap();
            fs::write(from.join("usr/bin/sh"), "#!").unwrap();
            fs::set_permissions(from.join("usr/bin/sh"), PermissionsExt::from_mode(0o755)).unwrap();
            fs::write(&long, vec![7; 70_000]).unwrap();
            fs::hard_link(&long, from.join("other-name")).unwrap();
            symlink("usr/bin", from.join("bin")).unwrap();
            fs::create_dir(from.join("tmp")).unwrap();
            fs::set_permissions(from.join("tmp"), PermissionsExt::from_mode(0o1777)).unwrap();
            let mut tar = Command::new("tar");
            tar.arg("-C").arg(&from).arg(format!("--format={format}"));
            if compress {
                tar.arg("--gzip");
            }
            let packed = tar.args(["-c", "."]).output().unwrap();
            let said = String::from_utf8_lossy(&packed.stderr);
            assert!(packed.status.success(), "{said}");
            let applied = place.apply(&packed.stdout).unwrap();
            assert_eq!(listing(&place.root()), listing(&from), "{format}");
            assert_eq!((applied.entries, applied.bytes), (8, 70_002), "{format}");
            let inode = |name: &StdPath| place.root().join(name).metadata().unwrap().ino();
            assert_eq!(
                inode(StdPath::new("other-name")),
                inode(long.strip_prefix(&from).unwrap())
            );
        }
    }
}

#[test]
fn a_layer_lies_over_the_ones_below() {
    let place = Place::new();
    let below =
        ["a/gone", "a/kept", "b/x/old", "b/y", "c", "d/file"].map(|path| file(path, "below"));
    place.apply(&layer(&below)).unwrap();
    let above = [
        file("a/.wh.gone", ""),
        // What a whiteout hides is of the layers below, wherever it stands in this one.
        file("b/x/new", "above"),
        file("b/.wh..wh..opq", ""),
        file("c", "above"),
        file("d/.wh.file", ""),
        file("d/file", "above"),
    ];
    let applied = place.apply(&layer(&above)).unwrap();
    assert!(!place.has("a/gone") && place.has("a/kept"));
    assert!(!place.has("b/y") && !place.has("b/x/old"));
    assert_eq!(place.read("b/x/new"), "above");
    assert_eq!(
        (place.read("c"), place.read("d/file")),
        ("above".into(), "above".into())
    );
    assert_eq!(applied.removed, 4);
}

#[test]
fn bits_that_give_rights_are_not_taken_over() {
    let place = Place::new();
    place.apply(&layer(&[file("su", "x")])).unwrap();
    assert_eq!(
        place.root().join("su").metadata().unwrap().mode() & 0o7777,
        0o755
    );
}

#[test]
fn nothing_is_written_outside() {
    use NameProblem::{Absolute, Escapes, Up};
    let place = Place::new();
    let outside = place.folder.path().join("outside");
    fs::write(&outside, "precious").unwrap();
    let precious = outside.display().to_string();
    let link = |path: &str, target: &str| entry(EntryType::Symlink, path, target, b"");
    let hard = |path: &str, target: &str| entry(EntryType::Link, path, target, b"");
    let named = |layer: Vec<u8>| match place.apply(&layer) {
        Err(LayerError::Name(error)) => error.problem,
        other => panic!("{other:?}"),
    };
    assert_eq!(named(layer(&[file("../outside", "evil")])), Up);
    assert_eq!(named(layer(&[file(&precious, "evil")])), Absolute);
    assert_eq!(named(layer(&[link("l", "../outside")])), Escapes);
    assert_eq!(named(layer(&[hard("l", "../outside")])), Up);
    assert_eq!(named(layer(&[hard("l", &precious)])), Absolute);
    // Through a link that was there before: of an earlier layer, or of somebody else.
    symlink("..", place.root().join("up")).unwrap();
    symlink(&outside, place.root().join("file")).unwrap();
    for hostile in [
        vec![file("up/outside", "evil")],
        vec![file("up/new/deep", "evil")],
        vec![hard("up/name", "file")],
        vec![hard("name", "up/outside")],
        vec![hard("name", "file")],
    ] {
        let told = place.apply(&layer(&hostile)).unwrap_err();
        assert!(matches!(told, LayerError::Entry { .. }), "{told}");
    }
    // Whiteouts do not reach through it either; and a file takes the place of a link.
    place
        .apply(&layer(&[
            file("up/.wh.outside", ""),
            file("up/.wh..wh..opq", ""),
        ]))
        .unwrap();
    place.apply(&layer(&[file("file", "mine")])).unwrap();
    for name in [".wh...", ".wh..", ".wh."] {
        assert!(place.apply(&layer(&[file(name, "")])).is_err(), "{name}");
    }
    assert_eq!(fs::read_to_string(&outside).unwrap(), "precious");
    assert_eq!(place.read("file"), "mine");
    let there = fs::read_dir(place.folder.path()).unwrap().count();
    assert_eq!(there, 2, "root and outside");
}

#[test]
fn an_absolute_link_means_the_layers_own_root() {
    let place = Place::new();
    let target = "/usr/bin/mawk";
    let alternatives = entry(EntryType::Symlink, "etc/alternatives/awk", target, b"");
    place
        .apply(&layer(&[file("usr/bin/mawk", "awk"), alternatives]))
        .unwrap();
    assert_eq!(place.read("etc/alternatives/awk"), "awk");
}

#[test]
fn devices_and_what_is_unknown_are_refused() {
    let place = Place::new();
    for (kind, what) in [
        (EntryType::Char, "a device"),
        (EntryType::Block, "a device"),
        (EntryType::Fifo, "a named pipe"),
        (EntryType::GNUSparse, "a sparse file"),
        (EntryType::new(b'Z'), "of a kind that is not known"),
    ] {
        let told = place
            .apply(&layer(&[entry(kind, "dev/x", "", b"")]))
            .unwrap_err();
        assert!(
            matches!(&told, LayerError::Kind { what: told, .. } if *told == what),
            "{told}"
        );
    }
    assert!(!place.has("dev/x"));
}

#[test]
fn bombs_end_at_the_limit() {
    use std::io::Write;
    let place = Place::new();
    let limits = Limits {
        bytes: 1 << 20,
        entries: 100,
    };
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    packed
        .write_all(&entry(EntryType::Regular, "zeros", "", &vec![0; 64 << 20]))
        .unwrap();
    let packed = packed.finish().unwrap();
    assert!(packed.len() < 100_000);
    let told = place.apply_within(&packed, limits).unwrap_err();
    assert!(
        matches!(told, LayerError::TooMuch { what: "bytes", .. }),
        "{told}"
    );
    assert!(fs::metadata(place.root().join("zeros")).unwrap().len() <= 1 << 20);
    let many: Vec<_> = (0..101)
        .map(|number| file(&format!("f{number}"), ""))
        .collect();
    let told = place.apply_within(&layer(&many), limits).unwrap_err();
    assert!(
        matches!(
            told,
            LayerError::TooMuch {
                what: "entries",
                ..
            }
        ),
        "{told}"
    );
    // A long name that claims to be as long as a disk.
    let mut name = entry(EntryType::GNULongName, "././@LongLink", "", b"x");
    let mut header = Header::from_byte_slice(&name[..512]).clone();
    header.set_size(1 << 40);
    header.set_cksum();
    name[..512].copy_from_slice(header.as_bytes());
    let told = place.apply(&layer(&[name])).unwrap_err();
    assert!(told.to_string().contains("at most 65536"), "{told}");
}

#[test]
fn what_is_no_archive_or_half_of_one_is_told() {
    let place = Place::new();
    for bytes in [
        &b"not a tar"[..],
        &[0x1f, 0x8b, 1, 2, 3],
        &file("a", &"x".repeat(600))[..700],
    ] {
        let told = place.apply(bytes).unwrap_err();
        assert!(told.to_string().contains("must be a tar archive"), "{told}");
    }
    assert_eq!(place.apply(&layer(&[])).unwrap(), Applied::default());
}
