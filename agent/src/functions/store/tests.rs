use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::process::ExitStatusExt as _;
use std::process::Command;

use tempfile::TempDir;

use super::*;

/// A folder with a function's directory `shop`, and where its store is to be.
struct Scene {
    folder: TempDir,
}

impl Scene {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let shop = folder.path().join("shop");
        fs::create_dir_all(shop.join("bin")).expect("a folder");
        fs::write(shop.join("bin/run"), "one").expect("a file");
        fs::set_permissions(shop.join("bin/run"), fs::Permissions::from_mode(0o4755))
            .expect("a mode");
        symlink("/bin/run", shop.join("bootstrap")).expect("a link");
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn store(&self) -> Store {
        Store::open(&self.path("store")).expect("a store")
    }

    fn definition(&self) -> Definition {
        Definition {
            root: vec![Source::Path(self.path("shop"))],
            command: vec!["/bootstrap".into()],
            ..Definition::default()
        }
    }

    fn change(&self, text: &str) {
        fs::write(self.path("shop/bin/run"), text).expect("a file");
    }

    /// Every path in the store, but those in layers.
    fn names(&self) -> Vec<String> {
        let of = |folder: &str| {
            let entries = fs::read_dir(self.path("store").join(folder)).expect("a folder");
            entries.map(move |entry| entry.expect("a name").file_name().into_string())
        };
        let names = of("versions").chain(of("layers"));
        names.map(|name| name.expect("UTF-8")).collect()
    }
}

fn shop() -> FunctionName {
    "shop".parse().expect("a name")
}

fn deploy(store: &mut Store, scene: &Scene) -> Arc<Deployed> {
    let deployed = store.deploy(&shop(), &scene.definition(), &InUse::new());
    deployed.expect("deployed")
}

#[test]
fn what_is_deployed_is_a_copy_by_the_rules_for_layers() {
    let scene = Scene::new();
    let mut store = scene.store();
    let version = deploy(&mut store, &scene);
    let layer = store.paths(&version).remove(0);
    scene.change("two");
    let run = layer.join("bin/run");
    assert_eq!(fs::read_to_string(&run).expect("the copy"), "one");
    let mode = |path: &Path| fs::metadata(path).expect("it").permissions().mode() & 0o7777;
    assert_eq!(mode(&run), 0o755, "no setuid bit is taken over");
    // A tempdir is 0700; `/` is for the function's user, too.
    assert_eq!(mode(&layer), 0o755);
    assert_eq!(mode(&scene.path("store")), 0o700);
    assert_eq!(mode(&scene.path("store/versions/shop.1.json")), 0o600);
    let link = fs::read_link(layer.join("bootstrap")).expect("a link");
    assert_eq!(link, Path::new("bin/run"), "it stays in the layer");
}

#[test]
fn the_same_once_more_is_no_new_version_and_a_change_is_one() {
    let scene = Scene::new();
    let mut store = scene.store();
    assert_eq!(deploy(&mut store, &scene).version, 1);
    assert_eq!(deploy(&mut store, &scene).version, 1);
    scene.change("two");
    assert_eq!(deploy(&mut store, &scene).version, 2);
    drop(store);
    let mut store = scene.store();
    let current: Vec<u32> = store.current().map(|version| version.version).collect();
    assert_eq!(current, [2]);
    let other = Definition {
        memory: crate::config::Size(256 << 20),
        ..scene.definition()
    };
    let version = store
        .deploy(&shop(), &other, &InUse::new())
        .expect("deployed");
    assert_eq!(version.version, 3);
    // The same content is there once.
    assert_eq!(
        version.layers,
        store.version(&shop(), 2).expect("two").layers
    );
    assert_eq!(scene.names().len(), 3 + 2);
}

#[test]
fn old_versions_go_but_those_in_use() {
    let scene = Scene::new();
    let mut store = scene.store();
    let in_use = InUse::from([(shop(), 1)]);
    for n in 1..=7 {
        scene.change(&n.to_string());
        let deployed = store.deploy(&shop(), &scene.definition(), &in_use);
        assert_eq!(deployed.expect("deployed").version, n);
    }
    let there = |store: &Store| -> Vec<u32> {
        (1..=7)
            .filter(|n| store.version(&shop(), *n).is_some())
            .collect()
    };
    assert_eq!(there(&store), [1, 4, 5, 6, 7]);
    assert_eq!(scene.names().len(), 5 + 5, "a layer each");
    store.prune(&InUse::new()).expect("pruned");
    store.collect().expect("collected");
    assert_eq!(there(&store), [4, 5, 6, 7]);
    store.remove(&shop()).expect("removed");
    assert_eq!(scene.names(), [""; 0]);
}

#[test]
fn a_layer_that_reaches_out_is_refused_and_leaves_nothing() {
    let scene = Scene::new();
    let mut store = scene.store();
    fs::create_dir_all(scene.path("pipe")).expect("a folder");
    rustix::fs::mkfifoat(
        rustix::fs::CWD,
        scene.path("pipe/p"),
        rustix::fs::Mode::RWXU,
    )
    .expect("a pipe");
    fs::create_dir_all(scene.path("out")).expect("a folder");
    symlink("../../etc/passwd", scene.path("out/up")).expect("a link");
    symlink(scene.path("shop"), scene.path("link")).expect("a link");
    fs::write(scene.path("text"), "no archive".repeat(200)).expect("a file");
    for (name, words) in [
        ("nowhere", "No such file"),
        ("link", "a symbolic link is on the way"),
        ("link/bin", "a symbolic link is on the way"),
        ("pipe", "a named pipe"),
        ("pipe/p", "neither a directory nor a file"),
        ("out", "leads out of the layer"),
        ("text", "tar archive"),
        ("store", "the store of functions"),
        ("store/layers", "the store of functions"),
    ] {
        let definition = Definition {
            root: vec![
                Source::Path(scene.path("shop")),
                Source::Path(scene.path(name)),
            ],
            ..scene.definition()
        };
        let problem = store
            .deploy(&shop(), &definition, &InUse::new())
            .expect_err(name);
        assert_eq!(problem.kind, Kind::Layer, "{problem}");
        assert_eq!(problem.field.as_deref(), Some("root[1]"));
        assert!(problem.to_string().contains(words), "{name}: {problem}");
        assert_eq!(scene.names(), [""; 0], "{name}");
    }
}

#[test]
fn a_directory_and_an_archive_of_it_are_both_layers() {
    let scene = Scene::new();
    let archive = scene.path("shop.tar.gz");
    let status = Command::new("tar")
        .args(["-C", scene.path("shop").to_str().expect("UTF-8"), "-czf"])
        .arg(&archive)
        .arg(".")
        .status();
    assert!(status.expect("tar").success());
    let mut store = scene.store();
    let definition = Definition {
        root: vec![Source::Path(archive), Source::Path(scene.path("shop"))],
        ..scene.definition()
    };
    let version = store
        .deploy(&shop(), &definition, &InUse::new())
        .expect("deployed");
    for layer in store.paths(&version) {
        assert_eq!(
            fs::read_to_string(layer.join("bin/run")).expect("it"),
            "one"
        );
    }
}

#[test]
fn a_store_that_others_could_change_is_not_used() {
    let scene = Scene::new();
    fs::create_dir(scene.path("store")).expect("a folder");
    fs::set_permissions(scene.path("store"), fs::Permissions::from_mode(0o755)).expect("a mode");
    let told = |path: &str| Store::open(&scene.path(path)).expect_err(path).to_string();
    assert!(told("store").contains("chmod 700"), "{}", told("store"));
    symlink(scene.path("store"), scene.path("other")).expect("a link");
    assert!(told("other").contains("symbolic link"), "{}", told("other"));
    fs::set_permissions(scene.path("store"), fs::Permissions::from_mode(0o700)).expect("a mode");
    let _one = scene.store();
    assert!(
        told("store").contains("another hearth"),
        "{}",
        told("store")
    );
}

#[test]
fn a_damaged_record_is_left_out_and_takes_nothing_with_it() {
    let scene = Scene::new();
    deploy(&mut scene.store(), &scene);
    scene.change("two");
    deploy(&mut scene.store(), &scene);
    fs::write(scene.path("store/versions/shop.2.json"), "{").expect("a file");
    let store = scene.store();
    let current: Vec<u32> = store.current().map(|version| version.version).collect();
    assert_eq!(current, [1]);
    assert_eq!(scene.names().len(), 4);
}

/// What the tests below have done by a process that dies at the step that it is told.
#[test]
fn child_that_dies() {
    let Some(folder) = std::env::var_os("HEARTH_STORE") else {
        return;
    };
    let folder = PathBuf::from(folder);
    let mut store = Store::open(&folder.join("store")).expect("a store");
    let definition = Definition {
        root: vec![Source::Path(folder.join("shop"))],
        command: vec!["/bootstrap".into()],
        ..Definition::default()
    };
    store
        .deploy(&shop(), &definition, &InUse::new())
        .expect("deployed");
    if std::env::var_os("HEARTH_STORE_REMOVES").is_some() {
        store.remove(&shop()).expect("removed");
    }
}

/// Has `n` versions deployed, then one more, or all of them removed, by a process that is killed
/// at each of its steps in turn; `check` sees what there is then.
fn killed_at_every_step(versions: u32, removes: bool, check: impl Fn(&Store, u32)) {
    for step in 0.. {
        let scene = Scene::new();
        let mut store = scene.store();
        for n in 1..=versions {
            scene.change(&n.to_string());
            assert_eq!(deploy(&mut store, &scene).version, n);
        }
        drop(store);
        scene.change("the last");
        let mut child = Command::new(std::env::current_exe().expect("the test"));
        child
            .args(["--exact", "functions::store::tests::child_that_dies"])
            .env("HEARTH_STORE", scene.folder.path())
            .env("HEARTH_STORE_DIES_AT", step.to_string());
        if removes {
            child.env("HEARTH_STORE_REMOVES", "1");
        }
        let output = child.output().expect("the test runs itself");
        let store = scene.store();
        check(&store, step);
        // What is there is whole, and nothing is there beside it.
        let mut layers = BTreeSet::new();
        for version in store.functions.values().flat_map(BTreeMap::values) {
            for layer in store.paths(version) {
                assert!(layer.join("bin/run").exists(), "step {step}");
                layers.insert(layer);
            }
        }
        let records: usize = store.functions.values().map(BTreeMap::len).sum();
        assert_eq!(scene.names().len(), records + layers.len(), "step {step}");
        if output.status.success() {
            assert!(step > 5, "it went through {step} steps");
            return;
        }
        assert_eq!(output.status.signal(), Some(9), "step {step}: {output:?}");
    }
}

#[test]
fn an_end_at_any_step_leaves_the_old_or_the_new_version_and_nothing_else() {
    killed_at_every_step(5, false, |store, step| {
        let current: Vec<u32> = store.current().map(|version| version.version).collect();
        assert!(current == [5] || current == [6], "step {step}: {current:?}");
    });
}

#[test]
fn an_end_while_a_function_is_removed_leaves_its_newest_version_or_none() {
    killed_at_every_step(1, true, |store, step| {
        let current: Vec<u32> = store.current().map(|version| version.version).collect();
        assert!(
            current.is_empty() || current == [1] || current == [2],
            "step {step}: {current:?}"
        );
    });
}
