//! Annotations of a container, from what its runtime keeps on disk while it lives.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// Bytes of a file that are read at most; a Kubernetes container has some 20 KiB.
const FILE_BYTES: u64 = 1 << 20;
/// Namespaces of one runtime that are looked at.
const NAMESPACES: usize = 64;

/// Where runtimes keep what they know of a container.
#[derive(Clone, Debug)]
pub struct Bundles {
    root: PathBuf,
}

impl Default for Bundles {
    fn default() -> Self {
        Self {
            root: PathBuf::from("/"),
        }
    }
}

/// `config.json` of a bundle.
#[derive(Deserialize)]
struct Bundle {
    #[serde(default)]
    annotations: HashMap<String, String>,
}

/// `state.json` of runc; annotations are among its labels.
#[derive(Deserialize)]
struct State {
    config: StateConfig,
}

#[derive(Deserialize)]
struct StateConfig {
    #[serde(default)]
    labels: Vec<String>,
}

impl Bundles {
    /// Looks below `root` instead of `/`.
    #[must_use]
    pub fn below(root: PathBuf) -> Self {
        Self { root }
    }

    /// The value of the annotation `key` of a container, where a runtime of this node tells
    /// it. Reads small files; no symbolic link is followed.
    #[must_use]
    pub fn annotation(&self, container: &str, key: &str) -> Option<String> {
        // An id is one name: it must not lead anywhere else.
        if container.is_empty() || container.contains(['/', '\0']) || container.starts_with('.') {
            return None;
        }
        let bundles = [
            (
                "run/containerd/io.containerd.runtime.v2.task",
                true,
                "config.json",
            ),
            (
                "run/containers/storage/overlay-containers",
                false,
                "userdata/config.json",
            ),
            (
                "var/run/containers/storage/overlay-containers",
                false,
                "userdata/config.json",
            ),
        ];
        let states = [
            ("run/runc", false),
            ("run/containerd/runc", true),
            ("run/docker/runtime-runc", true),
        ];
        let from_bundle = bundles.into_iter().find_map(|(folder, spaced, file)| {
            let bundle: Bundle = self.first(folder, spaced, &format!("{container}/{file}"))?;
            bundle.annotations.get(key).cloned()
        });
        from_bundle.or_else(|| {
            states.into_iter().find_map(|(folder, spaced)| {
                let state: State =
                    self.first(folder, spaced, &format!("{container}/state.json"))?;
                state.config.labels.iter().find_map(|label| {
                    let (name, value) = label.split_once('=')?;
                    (name == key).then(|| value.to_owned())
                })
            })
        })
    }

    /// The first readable `file` in `folder`, or in one of its namespaces.
    fn first<T: DeserializeOwned>(&self, folder: &str, spaced: bool, file: &str) -> Option<T> {
        let folder = Path::new(folder);
        if !spaced {
            return self.read(&folder.join(file)).ok();
        }
        let namespaces = std::fs::read_dir(self.root.join(folder)).ok()?;
        namespaces.flatten().take(NAMESPACES).find_map(|namespace| {
            self.read(&folder.join(namespace.file_name()).join(file))
                .ok()
        })
    }

    fn read<T: DeserializeOwned>(&self, file: &Path) -> io::Result<T> {
        let root = File::open(&self.root)?;
        let file = rustix::fs::openat2(
            &root,
            file,
            // Neither a FIFO nor a device may hold the reader.
            OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK,
            Mode::empty(),
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS,
        )?;
        let file = File::from(file);
        if !file.metadata()?.is_file() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mut text = Vec::new();
        file.take(FILE_BYTES).read_to_end(&mut text)?;
        Ok(serde_json::from_slice(&text)?)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const KEY: &str = "hearth.function";

    fn put(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(path, text).expect("a file");
    }

    #[test]
    fn annotations_are_found_wherever_a_runtime_keeps_them() {
        for (path, text) in [
            (
                "run/containerd/io.containerd.runtime.v2.task/k8s.io/c1/config.json",
                r#"{"ociVersion":"1.0.2","annotations":{"hearth.function":"hello"}}"#,
            ),
            (
                "run/containers/storage/overlay-containers/c1/userdata/config.json",
                r#"{"annotations":{"hearth.function":"hello","other":"x"}}"#,
            ),
            (
                "run/runc/c1/state.json",
                r#"{"id":"c1","config":{"labels":["bundle=/b","hearth.function=hello"]}}"#,
            ),
            (
                "run/docker/runtime-runc/moby/c1/state.json",
                r#"{"config":{"labels":["hearth.function=hello"]}}"#,
            ),
        ] {
            let root = tempfile::tempdir().expect("a folder");
            put(root.path(), path, text);
            let bundles = Bundles::below(root.path().into());
            assert_eq!(
                bundles.annotation("c1", KEY).as_deref(),
                Some("hello"),
                "{path}"
            );
            assert_eq!(bundles.annotation("c2", KEY), None);
            assert_eq!(bundles.annotation("c1", "absent"), None);
        }
    }

    #[test]
    fn links_odd_names_and_odd_files_are_not_followed() {
        let root = tempfile::tempdir().expect("a folder");
        let text = r#"{"config":{"labels":["hearth.function=stolen"]}}"#;
        put(root.path(), "secret/state.json", text);
        fs::create_dir_all(root.path().join("run/runc/c2")).expect("a folder");
        let link = std::os::unix::fs::symlink;
        link("../../secret", root.path().join("run/runc/c1")).expect("a link");
        link(
            "../../../secret/state.json",
            root.path().join("run/runc/c2/state.json"),
        )
        .expect("a link");
        put(root.path(), "run/runc/c3/state.json", &"x".repeat(3 << 20));
        let bundles = Bundles::below(root.path().into());
        for id in ["c1", "c2", "c3", "", ".", "..", "../../secret", "a/b"] {
            assert_eq!(bundles.annotation(id, KEY), None, "{id:?}");
        }
    }
}
