use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::*;

#[test]
fn restores_that_race_a_removal_get_all_of_it_or_nothing() {
    let scene = Scene::new();
    let store = scene.store();
    let (mut served, mut gone) = (0, 0);
    for salt in 0..60 {
        let snapshot = publish(&store, salt);
        let restore = || {
            // A store of its own, as another process has.
            let store = Store {
                root: store.root.clone(),
                ..store
            };
            match store.restore(&snapshot, &host()) {
                Ok(opened) => {
                    thread::yield_now();
                    check(&opened, salt);
                    // Held: the collector has left it where it was.
                    assert!(snapshot.path(&scene.directory()).join("state").exists());
                    true
                }
                Err(SnapshotError::Gone(_)) => false,
                Err(error) => panic!("{error}"),
            }
        };
        let results = thread::scope(|scope| {
            let restores = [scope.spawn(restore), scope.spawn(restore)];
            let collect = scope.spawn(|| store.gc(0, &|_| true).unwrap());
            let collected = collect.join().unwrap();
            let results = restores.map(|restore| restore.join().unwrap());
            if collected.in_use.len() == 1 {
                assert!(results[0] || results[1], "left for nobody");
            }
            results
        });
        for is_served in results {
            if is_served {
                served += 1;
            } else {
                gone += 1;
            }
        }
        for left in store.all().unwrap() {
            removed(&store, &left);
        }
        assert_eq!(scene.paths(), [""; 0], "nothing half removed");
    }
    assert_eq!(served + gone, 120);
}

#[test]
fn who_has_come_as_far_as_the_directory_of_what_is_removed_is_told_that_it_is_gone() {
    let scene = Scene::new();
    let store = scene.store();
    let snapshot = publish(&store, 1);
    let (of_key, folder) = store.folder(&snapshot).unwrap();
    store.remove(&snapshot).unwrap();
    let held = restore::hold(&of_key, folder, &snapshot);
    assert!(matches!(held, Err(file::Fault::Gone)), "{held:?}");
    // Nor is another one in its place taken for it.
    let snapshot = publish(&store, 2);
    let (of_key, folder) = store.folder(&snapshot).unwrap();
    let path = snapshot.path(&scene.directory());
    fs::rename(&path, scene.folder.join("aside")).unwrap();
    fs::create_dir(&path).unwrap();
    let held = restore::hold(&of_key, folder, &snapshot);
    assert!(matches!(held, Err(file::Fault::Gone)), "{held:?}");
}

#[test]
fn publishers_and_readers_at_once_see_only_whole_ones() {
    let scene = Scene::new();
    let store = scene.store();
    publish(&store, 0);
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let publishers = [1..8, 101..108].map(|salts| {
            let store = &store;
            scope.spawn(move || {
                salts
                    .map(|salt| publish(store, salt).generation.0)
                    .collect::<Vec<_>>()
            })
        });
        for _ in 0..2 {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    let refused = &mut |_: &Snapshot, error: &SnapshotError| {
                        assert!(matches!(error, SnapshotError::Gone(_)), "{error}");
                    };
                    if let Some(opened) = store.restore_newest(&key(), &host(), refused).unwrap() {
                        let salt = opened.state[0];
                        check(&opened, salt);
                    }
                }
            });
        }
        let mut generations: Vec<u64> = publishers
            .into_iter()
            .flat_map(|publisher| publisher.join().unwrap())
            .collect();
        is_over.store(true, Ordering::Relaxed);
        generations.sort_unstable();
        assert_eq!(generations, (2..=15).collect::<Vec<_>>(), "each its own");
    });
}
