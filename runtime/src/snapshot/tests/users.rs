//! Who uses a snapshot keeps it.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};
use std::ptr;

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use super::*;

#[test]
fn what_is_mapped_stays_even_where_its_file_was_closed() {
    let scene = Scene::new();
    let store = scene.store();
    let snapshot = publish(&store, 1);
    let Opened { memory, .. } = store.restore(&snapshot, &host()).unwrap();
    // SAFETY: a new mapping, at an address that the kernel chooses.
    let at = unsafe {
        mmap(
            ptr::null_mut(),
            MEMORY_BYTES,
            ProtFlags::READ,
            MapFlags::PRIVATE,
            &memory,
            0,
        )
    };
    let at = at.unwrap();
    let kept = |store: &Store| {
        let told = store.remove(&snapshot).unwrap_err();
        assert!(matches!(told, SnapshotError::InUse(_)), "{told}");
        let collected = store.gc(0, &|_| true).unwrap();
        assert_eq!((collected.removed.len(), collected.in_use.len()), (0, 1));
    };
    kept(&store);
    drop(memory);
    kept(&store);
    // Others may begin with it meanwhile, and another process may try to remove it.
    check(&store.restore(&snapshot, &host()).unwrap(), 1);
    kept(&scene.store());
    // SAFETY: the mapping of above, of which nothing is used any more.
    unsafe { munmap(at, MEMORY_BYTES) }.unwrap();
    assert!(removed(&store, &snapshot) > 0);
    assert_eq!(scene.paths(), [""; 0]);
    let told = store.restore(&snapshot, &host()).unwrap_err();
    assert!(matches!(told, SnapshotError::Gone(_)), "{told}");
}

/// What the test below has done by a process that gets the memory as its standard input, and is
/// killed.
#[test]
fn child_that_holds() {
    if std::env::var_os("HEARTH_SNAPSHOT_HOLDS").is_some() {
        println!("\nholding");
        std::io::stdout().flush().unwrap();
        std::thread::sleep(std::time::Duration::from_mins(2));
    }
}

#[test]
fn a_user_in_another_process_counts_until_it_is_gone() {
    let scene = Scene::new();
    let store = scene.store();
    let snapshot = publish(&store, 1);
    let opened = store.restore(&snapshot, &host()).unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "snapshot::tests::users::child_that_holds",
            "--nocapture",
        ])
        .env("HEARTH_SNAPSHOT_HOLDS", "1")
        .stdin(opened.memory.try_clone().unwrap())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap() == "holding"));
    drop(opened);
    assert!(matches!(
        store.remove(&snapshot),
        Err(SnapshotError::InUse(_))
    ));
    child.kill().unwrap();
    child.wait().unwrap();
    removed(&store, &snapshot);
}

#[test]
fn of_a_key_that_is_not_wanted_nothing_stays() {
    let scene = Scene::new();
    let store = scene.store();
    publish(&store, 1);
    publish(&store, 2);
    let collected = store.gc(2, &|key| key.version != 7).unwrap();
    assert_eq!(collected.removed.len(), 2);
    assert!(collected.bytes > 0);
    assert_eq!(scene.paths(), [""; 0]);
}
