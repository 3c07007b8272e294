//! One layer, from where it comes to a directory of the store named by its content.

use std::io::{self, Read as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::PathBuf;
use std::thread;

use hearth_runtime::rootfs::image::{Digest, Image, ImageError};
use hearth_runtime::rootfs::{LayerError, Limits, apply};
use rustix::fs::{Mode, fchmod, syncfs};
use sha2::{Digest as _, Sha256};

use super::content::{Content, Summing, open};
use super::folder::{Folder, StoreError, UNFINISHED};
use crate::functions::source::Source;

/// Why a layer is not in the store.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refused {
    #[error("{0}")]
    Source(#[from] io::Error),
    #[error("{0}")]
    Layer(#[from] LayerError),
    #[error("{0}")]
    Image(#[from] ImageError),
    #[error("{0}")]
    Store(#[from] StoreError),
}

/// What an image brings beside its files.
#[derive(Debug, Default)]
pub(super) struct Process {
    pub(super) command: Vec<String>,
    pub(super) environment: Vec<String>,
    pub(super) directory: String,
}

/// Has the layer at `source` in `layers`, under its digest.
pub(super) fn keep(source: &Source, layers: &Folder) -> Result<(Digest, Option<Process>), Refused> {
    let opened = open(source.path())?;
    match source {
        Source::Path(_) => {
            let content = Content::of(opened)?;
            // Read once to know its name: mostly it is there already, and nothing is written.
            let digest = named(content.digest(Limits::default().bytes)?)?;
            if layers.has(&digest) {
                return Ok((digest, None));
            }
            Ok((unpack(layers, |root| copy(&content, root))?, None))
        }
        Source::Image { tag, .. } => {
            // The directory that was opened, whatever is at its path by now.
            let layout = PathBuf::from(format!("/proc/self/fd/{}", opened.as_raw_fd()));
            let image = Image::open(&layout, tag.as_deref())?;
            let digest = image.digest.clone();
            if !layers.has(&digest) {
                unpack(layers, |root| {
                    image.unpack(&root, Limits::default())?;
                    Ok(image.digest.clone())
                })?;
            }
            let process = Process {
                command: image.command,
                environment: image.environment,
                directory: image.directory,
            };
            Ok((digest, Some(process)))
        }
    }
}

impl Folder {
    fn has(&self, digest: &Digest) -> bool {
        self.names()
            .is_ok_and(|names| names.iter().any(|name| name == digest.digits()))
    }
}

/// Fills a new directory, and gives it the name of its content.
fn unpack(
    layers: &Folder,
    fill: impl FnOnce(OwnedFd) -> Result<Digest, Refused>,
) -> Result<Digest, Refused> {
    let unfinished = format!("{UNFINISHED}layer");
    let filled = layers
        .new_directory(&unfinished)
        .map_err(Refused::from)
        .and_then(|root| {
            let digest = fill(root.try_clone()?)?;
            // An archive may say otherwise of its own root.
            let everyone = Mode::RWXU | Mode::RGRP | Mode::XGRP | Mode::ROTH | Mode::XOTH;
            fchmod(&root, everyone).map_err(io::Error::from)?;
            // Thousands of files: one call for all of them.
            syncfs(&root).map_err(io::Error::from)?;
            Ok(digest)
        });
    let published = filled.and_then(|digest| {
        // It may have changed since it was first read, into what is there already.
        if !layers.has(&digest) {
            layers.rename(&unfinished, digest.digits())?;
        }
        Ok(digest)
    });
    layers.abandon(&unfinished);
    published
}

/// Unpacks the stream that `content` is, by the rules for archives of strangers.
fn copy(content: &Content, root: OwnedFd) -> Result<Digest, Refused> {
    let (reader, mut writer) = io::pipe()?;
    thread::scope(|scope| {
        let writing = scope.spawn(move || content.write_to(&mut writer));
        let mut summing = Summing {
            inner: reader,
            sum: Sha256::new(),
            left: 0,
        };
        let applied = apply(&mut summing, root, Limits::default());
        if applied.is_ok() {
            // What follows the end of the archive is part of the file, too.
            io::copy(
                &mut summing.by_ref().take(Limits::default().bytes),
                &mut io::sink(),
            )?;
        }
        let Summing { inner, sum, .. } = summing;
        // Whoever still writes is not waited for.
        drop(inner);
        let written = writing
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("reading it failed")));
        match written {
            // Then the archive's end is only what follows from it.
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
            _ => {
                applied?;
                named(sum.finalize().into())
            }
        }
    })
}

fn named(sum: [u8; 32]) -> Result<Digest, Refused> {
    use std::fmt::Write as _;
    let mut text = String::from("sha256:");
    for byte in sum {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    Digest::try_from(text).map_err(|error| io::Error::other(error).into())
}
