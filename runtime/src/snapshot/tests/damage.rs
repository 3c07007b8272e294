//! Files that were changed after they were published: refused, with the field, both values and what
//! to do.

use std::os::unix::fs::{PermissionsExt, symlink};

use super::*;

const FILES: [&str; 5] = ["memory", "state", "disk", "manifest.json", "sealed.json"];

/// One that was published, and a copy of it with another generation.
struct Pair {
    scene: Scene,
    store: Store,
    one: Snapshot,
    other: Snapshot,
}

impl Pair {
    fn new() -> Self {
        let scene = Scene::new();
        let store = scene.store();
        let (one, other) = (publish(&store, 1), publish(&store, 2));
        check(&store.restore(&one, &host()).unwrap(), 1);
        Self {
            scene,
            store,
            one,
            other,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.scene.file(&self.one, name)
    }

    /// That it is refused with these words, and the other generation is not touched by it.
    fn refused(&self, words: &[&str]) {
        let told = refusal(&self.store, &self.one);
        for word in words {
            assert!(told.contains(word), "no `{word}` in: {told}");
        }
        assert!(told.contains("shop, version 7, generation 1"), "{told}");
        assert!(told.contains("hearth snapshot "), "a remedy: {told}");
        check(&self.store.restore(&self.other, &host()).unwrap(), 2);
    }
}

#[test]
fn every_file_truncated() {
    for name in FILES {
        let pair = Pair::new();
        let path = pair.path(name);
        let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
        let size = file.metadata().unwrap().len();
        // A page short where it has more than one.
        let less = if size > 4096 { size - 4096 } else { size - 1 };
        file.set_len(less).unwrap();
        let (less, size) = (less.to_string(), size.to_string());
        match name {
            "manifest.json" => pair.refused(&["digest of manifest.json is"]),
            "sealed.json" => pair.refused(&["sealed.json is", "--reseal"]),
            _ => pair.refused(&[&format!("size of {name} is {less}"), &size]),
        }
    }
}

#[test]
fn every_file_with_one_bit_changed() {
    for name in FILES {
        let pair = Pair::new();
        let path = pair.path(name);
        let mut bytes = fs::read(&path).unwrap();
        let at = if name == "sealed.json" {
            // The last digit of a number.
            let number = bytes.windows(8).position(|part| part == b"\"inode\":");
            let rest = &bytes[number.unwrap()..];
            number.unwrap() + rest.iter().position(|byte| *byte == b',').unwrap() - 1
        } else {
            bytes.len() / 2
        };
        bytes[at] ^= 1;
        let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
        file.write_all_at(&bytes, 0).unwrap();
        match name {
            "manifest.json" => pair.refused(&["digest of manifest.json is"]),
            "sealed.json" => pair.refused(&["inode of memory is", "--reseal"]),
            "state" => pair.refused(&["digest of state is", &Digest::of(&state(1)).to_string()]),
            // Not read, and yet seen.
            _ => {
                pair.refused(&[&format!("ctime of {name} is"), "--reseal"]);
                for reseal in [false, true] {
                    let told = pair
                        .store
                        .verify(&pair.one, reseal)
                        .unwrap_err()
                        .to_string();
                    assert!(told.contains(&format!("digest of {name} is")), "{told}");
                }
            }
        }
    }
}

#[test]
fn every_file_swapped_with_that_of_another_generation() {
    for name in FILES {
        let pair = Pair::new();
        let (mine, theirs) = (pair.path(name), pair.scene.file(&pair.other, name));
        let aside = pair.scene.folder.join("aside");
        fs::rename(&mine, &aside).unwrap();
        fs::rename(&theirs, &mine).unwrap();
        fs::rename(&aside, &theirs).unwrap();
        let field = match name {
            "state" | "manifest.json" => format!("digest of {name}"),
            "sealed.json" => "snapshot in sealed.json".to_owned(),
            _ => format!("inode of {name}"),
        };
        for snapshot in [&pair.one, &pair.other] {
            let told = refusal(&pair.store, snapshot);
            assert!(told.contains(&field), "{told}");
        }
    }
}

#[test]
fn all_large_files_swapped_together_with_what_is_known_of_them() {
    let pair = Pair::new();
    for name in ["memory", "disk", "sealed.json"] {
        fs::rename(pair.scene.file(&pair.other, name), pair.path(name)).unwrap();
    }
    let told = refusal(&pair.store, &pair.one);
    assert!(told.contains("snapshot in sealed.json"), "{told}");
    let told = pair.store.verify(&pair.one, true).unwrap_err().to_string();
    assert!(told.contains("digest of memory"), "{told}");
}

#[test]
fn a_whole_generation_in_the_place_of_another_one() {
    let pair = Pair::new();
    let (one, other) = (pair.path(""), pair.scene.file(&pair.other, ""));
    fs::remove_dir_all(&one).unwrap();
    fs::rename(&other, &one).unwrap();
    let told = refusal(&pair.store, &pair.one);
    assert!(told.contains("digest of manifest.json"), "{told}");
    // Under its own id, and of another generation.
    let name = format!("5.{}", pair.other.id);
    fs::rename(&one, one.with_file_name(name)).unwrap();
    let moved = Snapshot {
        generation: Generation(5),
        ..pair.other.clone()
    };
    let told = refusal(&pair.store, &moved);
    assert!(told.contains("generation is 2, and must be 5"), "{told}");
}

#[test]
fn one_functions_snapshot_is_no_other_functions() {
    let pair = Pair::new();
    let other = Key {
        function: "bank".parse().unwrap(),
        ..key()
    };
    let directory = pair.scene.directory();
    let stolen = Snapshot {
        key: other,
        ..pair.one.clone()
    };
    let to = stolen.path(&directory);
    fs::create_dir(to.parent().unwrap()).unwrap();
    fs::set_permissions(to.parent().unwrap(), PermissionsExt::from_mode(0o700)).unwrap();
    fs::rename(pair.one.path(&directory), to).unwrap();
    let told = refusal(&pair.store, &stolen);
    assert!(told.contains("key is shop.7."), "{told}");
}

#[test]
fn every_file_replaced_by_a_link_or_by_none() {
    for name in FILES {
        let pair = Pair::new();
        let path = pair.path(name);
        let aside = pair.scene.folder.join("aside");
        fs::rename(&path, &aside).unwrap();
        pair.refused(&[&format!("kind of {name} is missing")]);
        symlink(&aside, &path).unwrap();
        pair.refused(&[&format!("kind of {name} is a symbolic link")]);
        fs::remove_file(&path).unwrap();
        fs::hard_link(&aside, &path).unwrap();
        pair.refused(&[&format!("number of names of {name} is 2, and must be 1")]);
        fs::remove_file(&path).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::RUSR).unwrap();
        pair.refused(&[&format!("kind of {name} is a pipe")]);
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        pair.refused(&[&format!("kind of {name} is a directory")]);
    }
}

#[test]
fn a_directory_replaced_by_a_link() {
    let pair = Pair::new();
    let path = pair.path("");
    let path = path.parent().unwrap().join(path.file_name().unwrap());
    let aside = pair.scene.folder.join("aside");
    fs::rename(&path, &aside).unwrap();
    symlink(&aside, &path).unwrap();
    pair.refused(&["kind of directory", "symbolic link"]);
}

#[test]
fn every_file_with_another_mode_or_owner() {
    let is_root = rustix::process::geteuid().is_root();
    for name in FILES.into_iter().chain([""]) {
        let pair = Pair::new();
        let path = pair.path(name);
        let (mode, what) = match name {
            "" => (0o700, "directory"),
            name => (0o600, name),
        };
        let set = |mode| fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        set(mode | 0o040);
        let expected = format!("is {:04o}, and must be {mode:04o}", mode | 0o040);
        pair.refused(&["mode of", what, &expected]);
        set(mode);
        if is_root {
            std::os::unix::fs::chown(&path, Some(12345), None).unwrap();
            pair.refused(&["owner of", what, "is user 12345, and must be user 0"]);
            std::os::unix::fs::chown(&path, Some(0), None).unwrap();
        }
        // Right again: what is not read at a restore is read once.
        if ["memory", "disk"].contains(&name) {
            pair.refused(&["ctime of", "--reseal"]);
            let told = pair.store.verify(&pair.one, false).unwrap_err().to_string();
            assert!(told.contains("ctime of"), "{told}");
            assert!(pair.store.verify(&pair.one, true).unwrap().is_resealed);
        }
        check(&pair.store.restore(&pair.one, &host()).unwrap(), 1);
    }
}

#[test]
fn a_store_that_others_could_change_is_not_used() {
    let scene = Scene::new();
    drop(scene.store());
    let told = |scene: &Scene| {
        let error = Store::open(&scene.directory(), Bounds::default()).unwrap_err();
        error.to_string()
    };
    fs::set_permissions(scene.directory(), PermissionsExt::from_mode(0o750)).unwrap();
    assert!(
        told(&scene).contains("others may use it (mode 0750)"),
        "{}",
        told(&scene)
    );
    let aside = scene.folder.join("aside");
    fs::rename(scene.directory(), &aside).unwrap();
    symlink(&aside, scene.directory()).unwrap();
    assert!(told(&scene).contains("symbolic link"), "{}", told(&scene));
}

#[test]
fn a_host_that_cannot_go_on_with_it() {
    let pair = Pair::new();
    let told = |host: &Host| pair.store.restore(&pair.one, host).unwrap_err();
    let mut less = host();
    less.cpu.features.insert("00000001.ecx".to_owned(), 0x07);
    let error = told(&less);
    let text = error.to_string();
    for word in [
        "cpu.features.00000001.ecx",
        "0x0000000f",
        "0x00000007",
        "host",
    ] {
        assert!(text.contains(word), "{text}");
    }
    assert_eq!(error.failure(), None, "it is no fault of the snapshot");
    let newer = Host {
        state_format: 2,
        ..host()
    };
    let text = told(&newer).to_string();
    assert!(text.contains("state_format is 1, and must be 2"), "{text}");
}

#[test]
fn a_manifest_of_another_version_is_refused_by_its_version() {
    let manifest = br#"{"format": 2, "all": "else", "is": ["different"]}"#;
    let told = Manifest::parse(manifest).unwrap_err().to_string();
    assert_eq!(told, "its format is version 2; this hearth knows version 1");
    let large = vec![b' '; usize::try_from(MAX_MANIFEST).unwrap() + 1];
    assert!(matches!(
        Manifest::parse(&large),
        Err(ManifestError::Size { .. })
    ));
}
