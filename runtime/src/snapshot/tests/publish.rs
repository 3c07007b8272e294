use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use super::*;

#[test]
fn what_is_published_is_restored_and_nobody_else_can_open_it() {
    let scene = Scene::new();
    let store = scene.store();
    let snapshot = publish(&store, 1);
    assert_eq!(snapshot.generation, Generation(1));
    let opened = store.restore(&snapshot, &host()).unwrap();
    check(&opened, 1);
    assert_eq!(opened.manifest.key, key());
    assert_eq!(store.newest(&key()).unwrap().as_ref(), Some(&snapshot));
    assert_eq!(store.find(snapshot.id).unwrap(), snapshot);
    for path in scene.paths() {
        let metadata = fs::metadata(&path).unwrap();
        let expected = if metadata.is_dir() { 0o700 } else { 0o600 };
        assert_eq!(metadata.permissions().mode() & 0o7777, expected, "{path}");
    }
    // Pages of zeros take no room.
    let memory = fs::metadata(scene.file(&snapshot, "memory")).unwrap();
    assert_eq!(memory.len(), MEMORY_BYTES as u64);
    assert!(
        memory.blocks() * 512 < 64 << 10,
        "{} blocks",
        memory.blocks()
    );
    // What is open for reading cannot be written to.
    assert!(opened.memory.write_at(b"x", 0).is_err());
}

#[test]
fn generations_count_for_each_key_and_old_ones_go() {
    let scene = Scene::new();
    let store = scene.store();
    let all: Vec<Snapshot> = (1..=3).map(|salt| publish(&store, salt)).collect();
    let generations: Vec<u64> = all.iter().map(|one| one.generation.0).collect();
    assert_eq!(generations, [1, 2, 3]);
    assert_eq!(
        store.all().unwrap(),
        [all[2].clone(), all[1].clone()],
        "two are kept"
    );
    let other = Key {
        version: 8,
        ..key()
    };
    let draft = store.begin(&other, false).unwrap();
    write_memory(&draft.memory, 0, &memory(9)).unwrap();
    draft.state.write_all_at(b"s", 0).unwrap();
    let first = draft.publish(description(Kind::Template)).unwrap();
    assert_eq!(first.generation, Generation(1));
    let opened = store.restore(&first, &host()).unwrap();
    assert!(opened.disk.is_none());
    assert_eq!(store.newest(&key()).unwrap().unwrap(), all[2]);
}

#[test]
fn a_draft_that_is_dropped_leaves_nothing() {
    let scene = Scene::new();
    let store = scene.store();
    drop(draft(&store, 1));
    assert_eq!(scene.paths(), [""; 0]);
}

#[test]
fn what_somebody_can_still_write_to_is_not_published() {
    let scene = Scene::new();
    let store = scene.store();
    for name in ["memory", "state", "disk"] {
        let draft = draft(&store, 1);
        let writer = match name {
            "memory" => &draft.memory,
            "state" => &draft.state,
            _ => draft.disk.as_ref().unwrap(),
        };
        let writer = writer.try_clone().unwrap();
        let told = draft.publish(description(Kind::Template)).unwrap_err();
        assert!(
            told.to_string().contains(&format!("{name} for writing")),
            "{told}"
        );
        drop(writer);
        assert_eq!(scene.paths(), [""; 0], "{name}");
    }
}

type Change = fn(&mut Description);

#[test]
fn what_cannot_be_right_is_not_published_and_the_field_is_named() {
    let scene = Scene::new();
    let store = scene.store();
    let cases: [(&str, Change); 6] = [
        ("memory.bytes is 262144, and must be 258048", |one| {
            one.regions[1].bytes -= 4096;
        }),
        ("regions[1].guest is 32768", |one| {
            one.regions[1].guest = 32768;
        }),
        ("regions[1].offset is 4096, and must be 65536", |one| {
            one.regions[1].offset = 4096;
        }),
        ("regions[0].bytes is 65535", |one| one.regions[0].bytes -= 1),
        ("producer", |one| one.producer = "x".repeat(65)),
        ("cpu is too long", |one| one.cpu.vendor = "x".repeat(33)),
    ];
    for (words, change) in cases {
        let mut description = description(Kind::Template);
        change(&mut description);
        let told = draft(&store, 1)
            .publish(description)
            .unwrap_err()
            .to_string();
        assert!(told.contains(words), "{told}");
        assert_eq!(scene.paths(), [""; 0], "{words}");
    }
    let draft = store.begin(&key(), false).unwrap();
    let told = draft
        .publish(description(Kind::Template))
        .unwrap_err()
        .to_string();
    assert!(told.contains("state.bytes is 0"), "{told}");
}

#[test]
fn no_more_is_stored_than_there_may_be() {
    let scene = Scene::new();
    let store = scene.store();
    let first = publish(&store, 1);
    let one = store.stored().unwrap();
    assert!(one > 0);
    // Room for one more, and for no third.
    let bounds = Bounds {
        bytes: one * 5 / 2,
        generations: 3,
        ..Bounds::default()
    };
    let store = scene.bounded(bounds);
    publish(&store, 2);
    let used = store.restore(&first, &host()).unwrap();
    let told = draft(&store, 3)
        .publish(description(Kind::Template))
        .unwrap_err();
    assert!(matches!(told, SnapshotError::OverBudget { .. }), "{told}");
    assert_eq!(store.all().unwrap().len(), 2);
    let store = scene.bounded(Bounds {
        generations: 2,
        ..bounds
    });
    drop(used);
    let third = (0..1000).find_map(|_| {
        // As long as a process that is being started has a copy of what was dropped.
        draft(&store, 3).publish(description(Kind::Template)).ok()
    });
    assert_eq!(third.unwrap().generation, Generation(3));
    assert_eq!(store.all().unwrap().len(), 2, "the oldest made room");
    assert!(store.find(first.id).is_err());
}

#[test]
fn a_full_disk_is_told_and_leaves_nothing() {
    use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
    let scene = Scene::new();
    let at = scene.folder.join("hearth-snap-full");
    fs::create_dir(&at).unwrap();
    if mount(
        "hearth-snap",
        &at,
        "tmpfs",
        MountFlags::empty(),
        c"size=160k,mode=0700",
    )
    .is_err()
    {
        eprintln!("left out: needs CAP_SYS_ADMIN");
        return;
    }
    let result = std::panic::catch_unwind(|| {
        let full = Scene::at(&at);
        let store = full.store();
        let full_memory = vec![7; MEMORY_BYTES];
        let draft = store.begin(&key(), false).unwrap();
        let told = write_memory(&draft.memory, 0, &full_memory).unwrap_err();
        let text = told.to_string();
        assert!(
            text.contains("no room for") && text.contains("262144 bytes are needed"),
            "{text}"
        );
        assert!(text.contains("/memory"), "{text}");
        drop(draft);
        assert_eq!(full.paths(), [""; 0]);
        // Room for all but the last files: the publishing itself fails.
        let draft = super::draft(&store, 1);
        let filler = fs::File::create(at.join("filler")).unwrap();
        let mut offset = 0;
        while filler
            .write_at(&[1; 4096], offset)
            .is_ok_and(|written| written == 4096)
        {
            offset += 4096;
        }
        let told = draft.publish(description(Kind::Template)).unwrap_err();
        assert!(
            matches!(told, SnapshotError::Full { free: 0, .. }),
            "{told}"
        );
        assert_eq!(full.paths(), [""; 0]);
        drop(filler);
        fs::remove_file(at.join("filler")).unwrap();
        let snapshot = publish(&store, 2);
        check(&store.restore(&snapshot, &host()).unwrap(), 2);
    });
    unmount(&at, UnmountFlags::DETACH).unwrap();
    result.unwrap();
}
