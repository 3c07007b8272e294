//! Images in an OCI image layout: a directory with `oci-layout`, `index.json` and blobs by digest,
//! as `skopeo copy docker://… oci:DIR`, `docker buildx build -o type=oci` and others write it.

mod blob;
mod document;

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use blob::Blobs;
pub use blob::Digest;
use document::{Config, Descriptor, Index, Manifest};

use super::apply::{Applied, LayerError, Limits, apply};

/// Layers that an image may have; overlayfs itself took no more than this for long.
const MAX_LAYERS: usize = 128;
/// Kinds of layers that can be unpacked, by the names of the OCI and of Docker.
const LAYERS: [&str; 4] = [
    "application/vnd.oci.image.layer.v1.tar",
    "application/vnd.oci.image.layer.v1.tar+gzip",
    "application/vnd.docker.image.rootfs.diff.tar",
    "application/vnd.docker.image.rootfs.diff.tar.gzip",
];
/// An index may name an index; deeper than this is no image.
const MAX_NESTING: usize = 4;

/// Why an image is not used.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// No image layout.
    #[error(
        "{0}: no OCI image layout: it has no index.json; `skopeo copy docker://NAME oci:DIR` makes one"
    )]
    NoLayout(String),
    /// A file of the layout cannot be read.
    #[error("{what} of the image cannot be read: {error}")]
    Read {
        /// Which.
        what: String,
        /// Why.
        error: io::Error,
    },
    /// A document is not as the specification says.
    #[error("{what} of the image is no such document: {error}")]
    Document {
        /// Which.
        what: String,
        /// Why.
        error: serde_json::Error,
    },
    /// What a blob has is not what its name says.
    #[error(
        "blob {expected} of the image has other content ({found}): it is damaged, or somebody changed it"
    )]
    Digest {
        /// Its name.
        expected: Digest,
        /// What it has.
        found: String,
    },
    /// A blob is not as large as the one who names it says.
    #[error("blob {digest} of the image has {found} bytes, not {expected}")]
    Size {
        /// Its name.
        digest: Digest,
        /// What was announced.
        expected: u64,
        /// What it has.
        found: u64,
    },
    /// It has none that runs here.
    #[error("the image has nothing for {wanted}; it has {found}")]
    Platform {
        /// This machine's.
        wanted: String,
        /// The image's.
        found: String,
    },
    /// More than one image, and none was named.
    #[error("the layout has more than one image: name one of {0}")]
    Ambiguous(String),
    /// No image of this name.
    #[error("the layout has no image `{wanted}`; it has {found}")]
    NoSuchName {
        /// The name.
        wanted: String,
        /// Those that there are.
        found: String,
    },
    /// Of a kind that cannot be read.
    #[error("the image has {what}: {remedy}")]
    Unsupported {
        /// What it has.
        what: String,
        /// What to do.
        remedy: &'static str,
    },
    /// A layer was refused.
    #[error("layer {digest}: {error}")]
    Layer {
        /// Which.
        digest: Digest,
        /// Why.
        error: LayerError,
    },
}

/// An image for this machine, its documents verified.
#[derive(Debug)]
pub struct Image {
    blobs: Blobs,
    /// The digest of its manifest: it names all of its content.
    pub digest: Digest,
    layers: Vec<Descriptor>,
    /// `ENTRYPOINT` and `CMD`.
    pub command: Vec<String>,
    /// `ENV`, as `NAME=value`.
    pub environment: Vec<String>,
    /// `WORKDIR`; empty where there is none.
    pub directory: String,
}

impl Image {
    /// Opens the image called `name` (the annotation `org.opencontainers.image.ref.name`) in
    /// `layout`, or its only one.
    pub fn open(layout: &Path, name: Option<&str>) -> Result<Self, ImageError> {
        let blobs = Blobs::open(layout)?;
        let index: Index = blobs.index()?;
        let mut chosen = named(index, name)?;
        for _ in 0..MAX_NESTING {
            if chosen.is_index() {
                let index: Index = blobs.document(&chosen)?;
                chosen = for_this_machine(index)?;
                continue;
            }
            let manifest: Manifest = blobs.document(&chosen)?;
            let config: Config = blobs.document(&manifest.config)?;
            let platform = config.platform();
            let wanted = document::this_machine();
            if platform.is_some_and(|platform| platform != wanted) {
                return Err(ImageError::Platform {
                    wanted,
                    found: config.platform().unwrap_or_default(),
                });
            }
            check_layers(&manifest.layers)?;
            let process = config.process.unwrap_or_default();
            return Ok(Self {
                blobs,
                digest: chosen.digest,
                layers: manifest.layers,
                command: [
                    process.entrypoint.unwrap_or_default(),
                    process.cmd.unwrap_or_default(),
                ]
                .concat(),
                environment: process.env.unwrap_or_default(),
                directory: process.working_dir.unwrap_or_default(),
            });
        }
        Err(ImageError::Unsupported {
            what: "an index in an index in an index".into(),
            remedy: "copy the one image of it that is wanted",
        })
    }

    /// Unpacks its layers into the empty directory `root`, one over the other. Where this fails,
    /// what is in `root` is to be thrown away: content is checked against its digest as it is read.
    pub fn unpack(&self, root: &OwnedFd, limits: Limits) -> Result<Applied, ImageError> {
        let mut sum = Applied::default();
        for layer in &self.layers {
            let left = Limits {
                bytes: limits.bytes.saturating_sub(sum.bytes),
                entries: limits.entries.saturating_sub(sum.entries),
            };
            let root = root.try_clone().map_err(|error| ImageError::Read {
                what: "the directory".into(),
                error,
            })?;
            let mut blob = self.blobs.open_blob(layer)?;
            let applied = apply(&mut blob, root, left);
            // A layer that was tampered with is told as that, whatever else is wrong with it.
            blob.verify()?;
            let applied = applied.map_err(|error| ImageError::Layer {
                digest: layer.digest.clone(),
                error,
            })?;
            sum.bytes += applied.bytes;
            sum.entries += applied.entries;
            sum.removed += applied.removed;
        }
        Ok(sum)
    }

    /// Bytes of its layers as they are stored.
    #[must_use]
    pub fn stored_bytes(&self) -> u64 {
        self.layers.iter().map(|layer| layer.size).sum()
    }
}

/// The one that is meant.
fn named(index: Index, name: Option<&str>) -> Result<Descriptor, ImageError> {
    let names = |all: &[Descriptor]| {
        let names: Vec<String> = all
            .iter()
            .map(|one| one.name().unwrap_or("(unnamed)").to_owned())
            .collect();
        if names.is_empty() {
            "none".to_owned()
        } else {
            names.join(", ")
        }
    };
    let all = index.manifests;
    let found = names(&all);
    let Some(wanted) = name else {
        // Several that differ by platform are one image to who asks for it.
        let first = all.first().and_then(Descriptor::name);
        if all.iter().any(|one| one.name() != first) {
            return Err(ImageError::Ambiguous(found));
        }
        return for_this_machine(Index { manifests: all });
    };
    let mut of_name = all;
    of_name.retain(|one| one.name() == Some(wanted));
    if of_name.is_empty() {
        let wanted = wanted.chars().take(200).collect();
        return Err(ImageError::NoSuchName { wanted, found });
    }
    for_this_machine(Index { manifests: of_name })
}

/// The first for this machine, or that does not say for which it is.
fn for_this_machine(index: Index) -> Result<Descriptor, ImageError> {
    let wanted = document::this_machine();
    let fits = |one: &Descriptor| {
        let platform = one.platform.as_ref().map(ToString::to_string);
        platform.is_none_or(|platform| platform == wanted)
    };
    let platforms: Vec<String> = index
        .manifests
        .iter()
        .filter_map(|one| one.platform.as_ref().map(ToString::to_string))
        .collect();
    index.manifests.into_iter().find(fits).ok_or_else(|| {
        let found = if platforms.is_empty() {
            "nothing".into()
        } else {
            platforms.join(", ")
        };
        ImageError::Platform { wanted, found }
    })
}

fn check_layers(layers: &[Descriptor]) -> Result<(), ImageError> {
    if layers.len() > MAX_LAYERS {
        return Err(ImageError::Unsupported {
            what: format!("{} layers, more than {MAX_LAYERS}", layers.len()),
            remedy: "squash it",
        });
    }
    for layer in layers {
        let kind = &*layer.media_type;
        if !LAYERS.contains(&kind) {
            return Err(ImageError::Unsupported {
                what: format!(
                    "a layer of type `{}`",
                    kind.chars().take(100).collect::<String>()
                ),
                remedy: "make its layers tar archives, plain or compressed by gzip",
            });
        }
    }
    Ok(())
}

/// Opens `path` for reading where it is a file, and no link to one.
fn open_file(directory: &OwnedFd, path: &str) -> io::Result<File> {
    use rustix::fs::{Mode, OFlags, ResolveFlags};
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    // Not to wait for a writer where somebody put a pipe.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = rustix::fs::openat2(directory, path, flags, Mode::empty(), resolve)?;
    let file = File::from(file);
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no file"))
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests;
