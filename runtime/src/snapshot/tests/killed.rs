//! Publishers and removers that are killed at any of their steps.

use std::os::unix::process::ExitStatusExt as _;
use std::process::Command;

use super::*;

/// What the tests below have done by a process that dies at the step that it is told.
#[test]
fn child_that_dies() {
    let Some(folder) = std::env::var_os("HEARTH_SNAPSHOT_FOLDER") else {
        return;
    };
    let scene = Scene::at(Path::new(&folder));
    let store = scene.store();
    match std::env::var("HEARTH_SNAPSHOT_DOES").unwrap().as_str() {
        "publish" => drop(publish(&store, 9)),
        "collect" => drop(store.gc(1, &|_| true).unwrap()),
        "fail" => drop(
            store
                .failed(&store.newest(&key()).unwrap().unwrap(), "state")
                .unwrap(),
        ),
        other => panic!("{other}"),
    }
}

/// Has `what` done to a store with two generations by a process that is killed at each of its steps
/// in turn; `check` sees what there is then.
fn killed_at_every_step(what: &str, least: u32, check_that: impl Fn(&Store, u32)) {
    for step in 0.. {
        let scene = Scene::new();
        let store = scene.store();
        publish(&store, 1);
        publish(&store, 2);
        drop(store);
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "snapshot::tests::killed::child_that_dies"])
            .env("HEARTH_SNAPSHOT_FOLDER", &scene.folder)
            .env("HEARTH_SNAPSHOT_DOES", what)
            .env("HEARTH_SNAPSHOT_DIES_AT", step.to_string())
            .output()
            .unwrap();
        let store = scene.store();
        check_that(&store, step);
        // What is there is whole, and nothing is there beside it.
        let snapshots = store.all().unwrap();
        for snapshot in &snapshots {
            let salt = [1, 2, 9][usize::try_from(snapshot.generation.0).unwrap() - 1];
            check(&store.restore(snapshot, &host()).unwrap(), salt);
            store.verify(snapshot, false).unwrap();
        }
        let mut paths = scene.paths();
        let notes = |path: &String| path.contains("failures.json");
        paths.retain(|path| !notes(path));
        assert_eq!(
            paths.len(),
            1 + 6 * snapshots.len(),
            "step {step}: {paths:#?}"
        );
        // And it goes on from there.
        let next = publish(&store, 3);
        assert_eq!(store.newest(&key()).unwrap(), Some(next), "step {step}");
        if output.status.success() {
            assert!(step >= least, "it went through {step} steps");
            return;
        }
        assert_eq!(output.status.signal(), Some(9), "step {step}: {output:?}");
    }
}

#[test]
fn an_end_at_any_step_of_publishing_leaves_the_old_or_the_new_one_and_nothing_else() {
    killed_at_every_step("publish", 15, |store, step| {
        let newest = store.newest(&key()).unwrap().unwrap();
        assert!(
            matches!(newest.generation.0, 2 | 3),
            "step {step}: {newest:?}"
        );
    });
}

#[test]
fn an_end_at_any_step_of_removing_leaves_all_of_it_or_nothing() {
    killed_at_every_step("collect", 6, |store, step| {
        let newest = store.newest(&key()).unwrap().unwrap();
        assert_eq!(newest.generation.0, 2, "step {step}");
    });
}

#[test]
fn an_end_at_any_step_of_noting_a_failure_leaves_it_noted_or_not() {
    killed_at_every_step("fail", 3, |store, step| {
        let newest = store.newest(&key()).unwrap().unwrap();
        let failures = store.failures(&newest).unwrap();
        let count = failures.counts.get("state").copied().unwrap_or_default();
        assert!(
            count <= 1 && failures.quarantined.is_none(),
            "step {step}: {failures:?}"
        );
    });
}

#[test]
fn what_is_still_being_made_is_nobodys_leftover() {
    let scene = Scene::new();
    let store = scene.store();
    let draft = draft(&store, 1);
    // Another process begins, and sweeps.
    drop(scene.store());
    let snapshot = draft.publish(description(Kind::Template)).unwrap();
    check(&store.restore(&snapshot, &host()).unwrap(), 1);
}
