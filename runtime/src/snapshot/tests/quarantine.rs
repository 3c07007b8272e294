use super::*;

#[test]
fn what_fails_the_same_way_again_and_again_is_left_alone_and_the_older_one_is_next() {
    let scene = Scene::new();
    let store = scene.store();
    let (older, newer) = (publish(&store, 1), publish(&store, 2));
    for way in ["vcpu", "device", "vcpu"] {
        assert_eq!(store.failed(&newer, way).unwrap().quarantined, None);
        assert_eq!(store.newest(&key()).unwrap().unwrap(), newer);
    }
    assert!(store.failed(&newer, "vcpu").unwrap().quarantined.is_some());
    // Whoever comes after knows.
    drop(store);
    let store = scene.store();
    assert_eq!(store.newest(&key()).unwrap().unwrap(), older);
    let told = refusal(&store, &newer);
    assert!(
        told.contains("quarantine is there") && told.contains("vcpu"),
        "{told}"
    );
    for _ in 0..3 {
        store.failed(&older, "vcpu").unwrap();
    }
    assert_eq!(
        store.newest(&key()).unwrap(),
        None,
        "what is left is a start"
    );
    assert!(
        store
            .restore_newest(&key(), &host(), &mut |_, _| {})
            .unwrap()
            .is_none()
    );
    // The newest of them stays for who wants to know why; a new one is used.
    let third = publish(&store, 3);
    assert_eq!(store.all().unwrap(), [third.clone(), newer]);
    assert_eq!(store.newest(&key()).unwrap(), Some(third));
}

#[test]
fn a_restore_that_works_says_that_it_was_no_fault_of_the_snapshot() {
    let scene = Scene::new();
    let store = scene.store();
    let snapshot = publish(&store, 1);
    for _ in 0..9 {
        store.failed(&snapshot, "vcpu").unwrap();
        store.worked(&snapshot).unwrap();
    }
    assert_eq!(store.failures(&snapshot).unwrap(), Failures::default());
}

#[test]
fn one_that_is_damaged_is_tried_as_often_as_it_may_fail_and_the_older_one_serves() {
    let scene = Scene::new();
    let store = scene.store();
    let (older, newer) = (publish(&store, 1), publish(&store, 2));
    let file = fs::OpenOptions::new()
        .write(true)
        .open(scene.file(&newer, "state"))
        .unwrap();
    file.write_at(b"x", 5).unwrap();
    let mut refused = Vec::new();
    for _ in 0..5 {
        let opened = store
            .restore_newest(&key(), &host(), &mut |one, error| {
                refused.push((one.clone(), error.to_string()));
            })
            .unwrap()
            .unwrap();
        assert_eq!(opened.snapshot, older);
        check(&opened, 1);
    }
    assert_eq!(refused.len(), 3);
    let is_told =
        |(one, why): &(Snapshot, String)| *one == newer && why.contains("digest of state");
    assert!(refused.iter().all(is_told), "{refused:#?}");
}

#[test]
fn notes_that_cannot_be_read_are_no_good_news() {
    let scene = Scene::new();
    let store = scene.store();
    let snapshot = publish(&store, 1);
    store.failed(&snapshot, "vcpu").unwrap();
    fs::write(scene.file(&snapshot, "failures.json"), "{").unwrap();
    assert_eq!(store.newest(&key()).unwrap(), None);
    let told = refusal(&store, &snapshot);
    assert!(told.contains("failures.json"), "{told}");
}

#[test]
fn ways_to_fail_are_bounded() {
    let scene = Scene::new();
    let store = scene.bounded(Bounds {
        failures: 1000,
        ..Bounds::default()
    });
    let snapshot = publish(&store, 1);
    for way in 0..40 {
        store
            .failed(&snapshot, &format!("ä{way}").repeat(60))
            .unwrap();
    }
    let failures = store.failures(&snapshot).unwrap();
    assert_eq!(failures.counts.len(), 17, "{failures:?}");
    assert_eq!(failures.counts.values().sum::<u32>(), 40);
    assert!(failures.counts.keys().all(|way| way.len() <= 64));
}

#[test]
fn a_busy_one_is_restored_once() {
    let scene = Scene::new();
    let store = scene.store();
    let snapshot = draft(&store, 1).publish(description(Kind::Busy)).unwrap();
    // A restore that is refused is none.
    let mut other = host();
    other.cpu.vendor = "GenuineIntel".to_owned();
    assert!(store.restore(&snapshot, &other).is_err());
    check(&store.restore(&snapshot, &host()).unwrap(), 1);
    let told = refusal(&scene.store(), &snapshot);
    assert!(
        told.contains("restores of a busy snapshot is 1, and must be 0"),
        "{told}"
    );
    assert_eq!(store.newest(&key()).unwrap(), None);
    // It goes with the next gc, as soon as nobody has it open.
    let collected = (0..10_000).find_map(|_| {
        let collected = store.gc(2, &|_| true).unwrap();
        collected.in_use.is_empty().then_some(collected)
    });
    assert_eq!(collected.unwrap().removed, [snapshot]);
}

#[test]
fn busy_ones_are_nobody_elses_and_take_no_templates_place() {
    let scene = Scene::new();
    let store = scene.store();
    let template = publish(&store, 1);
    let busy: Vec<Snapshot> = (2..=4)
        .map(|salt| {
            draft(&store, salt)
                .publish(description(Kind::Busy))
                .unwrap()
        })
        .collect();
    assert_eq!(store.newest(&key()).unwrap().as_ref(), Some(&template));
    let opened = store.restore_newest(&key(), &host(), &mut |_, error| panic!("{error}"));
    assert_eq!(opened.unwrap().unwrap().snapshot, template);
    assert!(!store.is_used(&busy[2]).unwrap());
    let there = [busy[2].clone(), busy[1].clone(), template];
    assert_eq!(store.all().unwrap(), there, "two busy ones are kept, too");
    check(&store.restore(&busy[2], &host()).unwrap(), 4);
}

#[test]
fn what_is_damaged_takes_no_good_ones_place() {
    let scene = Scene::new();
    let store = scene.store();
    let all: Vec<Snapshot> = (1..=2).map(|salt| publish(&store, salt)).collect();
    fs::write(scene.file(&all[1], "manifest.json"), "{}").unwrap();
    let third = publish(&store, 3);
    assert_eq!(
        store.all().unwrap(),
        [third.clone(), all[1].clone(), all[0].clone()]
    );
    assert_eq!(store.newest(&key()).unwrap(), Some(third));
}
