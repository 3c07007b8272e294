//! Layouts as the tools write them, and as nobody should.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::*;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

struct Layout(tempfile::TempDir);

impl Layout {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("blobs/sha256")).unwrap();
        fs::create_dir(folder.path().join("root")).unwrap();
        Self(folder)
    }

    fn blob(&self, content: &[u8]) -> Value {
        let digits = format!("{:x}", Sha256::digest(content));
        fs::write(self.path(&digits), content).unwrap();
        json!({"digest": format!("sha256:{digits}"), "size": content.len()})
    }

    fn path(&self, digits: &str) -> PathBuf {
        self.0.path().join("blobs/sha256").join(digits)
    }

    fn document(&self, kind: &str, content: &Value) -> Value {
        let mut descriptor = self.blob(content.to_string().as_bytes());
        descriptor["mediaType"] = kind.into();
        descriptor
    }

    fn layer(&self, files: &[(&str, &str)]) -> Value {
        let packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        let mut archive = tar::Builder::new(packed);
        for (path, content) in files {
            let mut header = tar::Header::new_gnu();
            header.set_mode(0o644);
            header.set_size(content.len() as u64);
            archive
                .append_data(&mut header, path, content.as_bytes())
                .unwrap();
        }
        let mut descriptor = self.blob(&archive.into_inner().unwrap().finish().unwrap());
        descriptor["mediaType"] = LAYER.into();
        descriptor
    }

    fn image(&self, architecture: &str, layers: &Value) -> Value {
        let config = json!({
            "os": "linux",
            "architecture": architecture,
            "config": {"Env": ["PATH=/bin"], "Entrypoint": ["/bin/sh", "-c"], "Cmd": ["x"], "WorkingDir": "/var/task"},
        });
        let config = self.document("application/vnd.oci.image.config.v1+json", &config);
        let mut manifest = self.document(MANIFEST, &json!({"config": config, "layers": layers}));
        manifest["platform"] = json!({"os": "linux", "architecture": architecture});
        manifest
    }

    fn index(&self, manifests: &Value) {
        let index = json!({"schemaVersion": 2, "manifests": manifests});
        fs::write(self.0.path().join("index.json"), index.to_string()).unwrap();
    }

    fn open(&self, name: Option<&str>) -> Result<Image, ImageError> {
        Image::open(self.0.path(), name)
    }

    fn unpack(&self) -> Result<Applied, ImageError> {
        let root = File::open(self.0.path().join("root")).unwrap().into();
        self.open(None)?.unpack(&root, Limits::default())
    }

    fn read(&self, path: &str) -> Option<String> {
        fs::read_to_string(self.0.path().join("root").join(path)).ok()
    }
}

fn here() -> &'static str {
    if cfg!(target_arch = "aarch64") {
        "arm64"
    } else {
        "amd64"
    }
}

fn named(mut descriptor: Value, name: &str) -> Value {
    descriptor["annotations"] = json!({"org.opencontainers.image.ref.name": name});
    descriptor
}

#[test]
fn the_image_for_this_machine_is_unpacked_layer_by_layer() {
    let layout = Layout::new();
    let below = layout.layer(&[("bin/sh", "below"), ("gone", "below")]);
    let above = layout.layer(&[("bin/sh", "above"), (".wh.gone", "")]);
    let images = json!([
        layout.image("s390x", &json!([])),
        layout.image(here(), &json!([below, above])),
    ]);
    let inner = layout.document(INDEX, &json!({"manifests": images}));
    layout.index(&json!([named(inner, "latest")]));
    let image = layout.open(Some("latest")).unwrap();
    assert_eq!(image.command, ["/bin/sh", "-c", "x"]);
    assert_eq!(
        (&*image.environment, &*image.directory),
        (&["PATH=/bin".to_owned()][..], "/var/task")
    );
    let applied = layout.unpack().unwrap();
    assert_eq!((applied.entries, applied.removed), (4, 1));
    assert_eq!(layout.read("bin/sh").as_deref(), Some("above"));
    assert_eq!(layout.read("gone"), None);
}

#[test]
fn content_that_was_changed_is_refused() {
    let layout = Layout::new();
    let layer = layout.layer(&[("a", "good")]);
    layout.index(&json!([layout.image(here(), &json!([layer]))]));
    layout.unpack().unwrap();
    let digits = layer["digest"]
        .as_str()
        .unwrap()
        .strip_prefix("sha256:")
        .unwrap()
        .to_owned();
    let good = fs::read(layout.path(&digits)).unwrap();
    // The name of the file in the header of gzip: nothing that unpacking would notice.
    let mut bad = good.clone();
    bad[4] ^= 1;
    fs::write(layout.path(&digits), &bad).unwrap();
    let told = layout.unpack().unwrap_err();
    assert!(matches!(told, ImageError::Digest { .. }), "{told}");
    fs::write(layout.path(&digits), [&good[..], b"x"].concat()).unwrap();
    let told = layout.unpack().unwrap_err();
    assert!(matches!(told, ImageError::Size { .. }), "{told}");
    fs::remove_file(layout.path(&digits)).unwrap();
    let elsewhere = layout.0.path().join("elsewhere");
    fs::write(&elsewhere, &good).unwrap();
    std::os::unix::fs::symlink(&elsewhere, layout.path(&digits)).unwrap();
    let told = layout.unpack().unwrap_err();
    assert!(matches!(told, ImageError::Read { .. }), "{told}");
}

#[test]
fn what_is_not_there_is_named() {
    let layout = Layout::new();
    let told = |name| layout.open(name).unwrap_err().to_string();
    assert!(told(None).contains("no index.json"));
    let image = layout.image(here(), &json!([]));
    layout.index(&json!([named(image.clone(), "a"), named(image, "b")]));
    assert!(told(None).contains("name one of a, b"), "{}", told(None));
    assert!(told(Some("c")).contains("no image `c`; it has a, b"));
    assert!(layout.open(Some("b")).is_ok());
    layout.index(&json!([layout.image("s390x", &json!([]))]));
    assert!(told(None).contains("it has linux/s390x"), "{}", told(None));
}

#[test]
fn what_cannot_be_read_says_what_to_do() {
    let layout = Layout::new();
    let mut layer = layout.layer(&[]);
    layer["mediaType"] = "application/vnd.oci.image.layer.v1.tar+zstd".into();
    layout.index(&json!([layout.image(here(), &json!([layer]))]));
    let told = layout.open(None).unwrap_err().to_string();
    assert!(told.contains("compressed by gzip"), "{told}");
    let layers = vec![layout.layer(&[]); 129];
    layout.index(&json!([layout.image(here(), &json!(layers))]));
    assert!(
        layout
            .open(None)
            .unwrap_err()
            .to_string()
            .contains("squash it")
    );
    for digest in ["sha256:../../../etc/passwd", "sha256:", "md5:00"] {
        layout.index(&json!([{"mediaType": MANIFEST, "digest": digest, "size": 3}]));
        let told = layout.open(None).unwrap_err().to_string();
        assert!(told.contains("is no digest"), "{told}");
    }
    let mut nested = layout.image(here(), &json!([]));
    for _ in 0..5 {
        nested = layout.document(INDEX, &json!({"manifests": [nested]}));
    }
    layout.index(&json!([nested]));
    assert!(matches!(
        layout.open(None).unwrap_err(),
        ImageError::Unsupported { .. }
    ));
}
