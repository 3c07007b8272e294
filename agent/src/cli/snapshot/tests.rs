#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::os::unix::fs::FileExt as _;

use hearth_runtime::snapshot::{Cpu, Description, Digest, Key, Kind, Region, write_memory};
use serde_json::Value;
use tempfile::TempDir;

use super::super::schema::faults_of;
use super::view::Status;
use super::*;

const SCHEMA: &str = include_str!("../../../../docs/schema/snapshot.schema.json");

struct Scene {
    folder: TempDir,
    store: Store,
}

impl Scene {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let store = Store::open(&folder.path().join("snapshots"), Bounds::default()).unwrap();
        Self { folder, store }
    }

    fn place(&self) -> Place {
        Place {
            file: ConfigFile { config: None },
            dir: Some(self.folder.path().join("snapshots")),
            json: true,
        }
    }

    fn publish(&self, kind: Kind) -> Snapshot {
        let key = Key {
            function: "shop".parse().unwrap(),
            version: 7,
            config: Digest::of(b"configuration"),
        };
        let draft = self.store.begin(&key, false).unwrap();
        write_memory(&draft.memory, 0, &[7; 8192]).unwrap();
        draft.state.write_all_at(b"state", 0).unwrap();
        let description = Description {
            kind,
            producer: "hearth 0.1.0".to_owned(),
            state_format: 1,
            cpu: Cpu {
                vendor: "AuthenticAMD".to_owned(),
                features: [("00000001.ecx".to_owned(), 15)].into(),
            },
            regions: vec![Region {
                guest: 0,
                offset: 0,
                bytes: 8192,
            }],
        };
        draft.publish(description).unwrap()
    }

    fn change(&self, snapshot: &Snapshot, name: &str) {
        let path = snapshot.path(self.store.directory()).join(name);
        let file = fs::OpenOptions::new().write(true).open(path).unwrap();
        file.write_all_at(b"x", 3).unwrap();
    }
}

/// One in each state, with the words that `list` has for it.
fn in_each_state(scene: &Scene) -> Vec<View> {
    let (good, damaged) = (scene.publish(Kind::Template), scene.publish(Kind::Template));
    scene.change(&damaged, "manifest.json");
    let mut all = vec![
        View::whole(&scene.store, &good),
        View::of(&scene.store, &damaged),
    ];
    for _ in 0..3 {
        scene.store.failed(&good, "vcpu").unwrap();
    }
    all.push(View::whole(&scene.store, &good));
    let busy = scene.publish(Kind::Busy);
    let manifest = scene.store.manifest(&busy).unwrap();
    let host = hearth_runtime::snapshot::Host {
        cpu: manifest.cpu,
        state_format: 1,
    };
    scene.store.restore(&busy, &host).unwrap();
    all.push(View::of(&scene.store, &busy));
    all
}

#[test]
fn whatever_is_printed_is_described() {
    let scene = Scene::new();
    let views = in_each_state(&scene);
    let states: Vec<Status> = views.iter().map(|view| view.status).collect();
    let expected = [
        Status::Good,
        Status::Refused,
        Status::Quarantined,
        Status::Used,
    ];
    assert_eq!(states, expected);
    for view in &views {
        let value = serde_json::to_value(view).unwrap();
        assert_eq!(faults_of(SCHEMA, &value), Vec::<String>::new(), "{value}");
        let mut changed = value.clone();
        changed["new"] = Value::from(1);
        assert!(!faults_of(SCHEMA, &changed).is_empty());
    }
    for (error, bytes) in [(None, Some(1)), (Some("why".to_owned()), None)] {
        let done = Line {
            id: "0".repeat(64),
            done: "verified",
            bytes,
            error,
        };
        let value = serde_json::to_value(&done).unwrap();
        assert_eq!(faults_of(SCHEMA, &value), Vec::<String>::new(), "{value}");
    }
}

#[test]
fn the_table_says_what_can_be_restored_and_why_not() {
    let scene = Scene::new();
    assert_eq!(table::list(&[], &Terminal::PLAIN), "no snapshots\n");
    let views = in_each_state(&scene);
    let text = table::list(&views, &Terminal::PLAIN);
    for words in [
        "shop            7           1  template",
        "8 KiB",
        "quarantined: its restores failed 3 times the same way: vcpu",
        "refused: snapshot ",
        "digest of manifest.json is",
        "used: it was taken of a sandbox at work",
    ] {
        assert!(text.contains(words), "no `{words}` in\n{text}");
    }
    let text = table::inspect(&views[2], &Terminal::PLAIN);
    for words in [
        "shop, version 7",
        "AuthenticAMD, 1 words",
        "8 KiB at 0x0",
        "3 times: vcpu",
        "hearth 0.1.0, state format 1",
    ] {
        assert!(text.contains(words), "no `{words}` in\n{text}");
    }
}

#[test]
fn an_id_may_be_shortened_as_long_as_it_is_clear() {
    let scene = Scene::new();
    let (one, other) = (scene.publish(Kind::Template), scene.publish(Kind::Template));
    let all = [one.clone(), other];
    let which = |text: &str| text.parse::<Which>();
    let id = one.id.to_string();
    for text in [&id[..12], &id] {
        assert_eq!(which(text).unwrap().find(&all).unwrap(), one);
    }
    let told = which(&id[..12])
        .unwrap()
        .find(&[one.clone(), one])
        .unwrap_err();
    assert!(told.to_string().contains("give more digits"), "{told}");
    let told = which("0000").unwrap().find(&[]).unwrap_err();
    assert!(told.to_string().contains("hearth snapshot list"), "{told}");
    for text in ["", "abc", "ABCD", "../x", &"0".repeat(65)] {
        assert!(which(text).is_err(), "{text}");
    }
}

#[test]
fn verifying_a_damaged_one_fails_and_a_removed_one_is_gone() {
    let scene = Scene::new();
    let snapshot = scene.publish(Kind::Template);
    let all = [snapshot.clone()];
    let place = scene.place();
    let verified = |reseal| verify(&place, &scene.store, &all, reseal).unwrap();
    assert_eq!(verified(false), ExitCode::SUCCESS);
    scene.change(&snapshot, "memory");
    assert_eq!(verified(true), ExitCode::FAILURE);
    let ids = [snapshot.id.short().parse().unwrap()];
    assert_eq!(remove(&place, &ids).unwrap(), ExitCode::SUCCESS);
    assert!(scene.store.all().unwrap().is_empty());
    let told = remove(&place, &ids).unwrap_err();
    assert!(told.to_string().contains("there is no snapshot"), "{told}");
}

#[test]
fn asking_for_what_is_not_there_makes_nothing() {
    let folder = TempDir::new().unwrap();
    let dir = folder.path().join("none");
    let place = Place {
        file: ConfigFile { config: None },
        dir: Some(dir.clone()),
        json: false,
    };
    let told = list(&place, None).unwrap_err().to_string();
    assert!(told.contains("snapshots.dir"), "{told}");
    assert!(!dir.exists());
}
