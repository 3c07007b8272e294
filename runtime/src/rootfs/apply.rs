//! One layer over what the layers below it left.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;

use flate2::bufread::MultiGzDecoder;
use rustix::fs::Mode;
use tar::EntryType;

use super::archive::{self, Entry};
use super::name::{NameError, Path};
use super::tree::{self, Tree};

/// A name that says that another is not there any more (OCI image specification, layers).
const WHITEOUT: &[u8] = b".wh.";
/// A name that says that nothing of the layers below is in this directory.
const OPAQUE: &[u8] = b".wh..wh..opq";

/// What a layer may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the archive, once it is uncompressed.
    pub bytes: u64,
    /// Files, directories and links.
    pub entries: u64,
}

impl Default for Limits {
    /// More than the largest image that AWS Lambda takes (10 GB has 4 GiB here), and more files
    /// than a full Debian has.
    fn default() -> Self {
        Self {
            bytes: 4 << 30,
            entries: 500_000,
        }
    }
}

/// What a layer had.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Files, directories and links.
    pub entries: u64,
    /// Bytes of files.
    pub bytes: u64,
    /// Names that it took away from the layers below.
    pub removed: u64,
}

/// Why a layer was not applied. What of it came before is in the directory, which is to be thrown
/// away.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// A path or link of it.
    #[error("the layer is refused: {0}")]
    Name(#[from] NameError),
    /// A device, pipe, socket or something unknown.
    #[error("the layer is refused: `{path}` is {what}; a layer has files, directories and links")]
    Kind {
        /// Where.
        path: String,
        /// What it is.
        what: &'static str,
    },
    /// It is larger than it may be.
    #[error("the layer is refused: more than {most} {what}; raise the limit if you trust it")]
    TooMuch {
        /// `bytes` or `entries`.
        what: &'static str,
        /// What is allowed.
        most: u64,
    },
    /// An entry cannot be made: the disk is full, or a path goes through a link or a file.
    #[error("`{path}` of the layer cannot be made: {error}")]
    Entry {
        /// Where.
        path: String,
        /// The kernel's answer.
        error: io::Error,
    },
    /// No tar archive, or damaged.
    #[error("the layer cannot be read: {0}; it must be a tar archive, plain or compressed by gzip")]
    Archive(#[from] io::Error),
}

/// Unpacks `layer`, a tar archive, plain or compressed by gzip, into the directory `root`, over
/// what is there.
///
/// Everything belongs to who does this; setuid and setgid bits, owners, times and extended
/// attributes are not taken over.
pub fn apply(layer: impl Read, root: OwnedFd, limits: Limits) -> Result<Applied, LayerError> {
    let mut bytes = BufReader::with_capacity(64 * 1024, layer);
    let is_gzip = io::BufRead::fill_buf(&mut bytes)?.starts_with(&[0x1f, 0x8b]);
    let plain: Box<dyn Read> = if is_gzip {
        Box::new(MultiGzDecoder::new(bytes))
    } else {
        Box::new(bytes)
    };
    // One byte more than allowed tells a layer that is larger from one that is cut.
    let mut capped = plain.take(limits.bytes.saturating_add(1));
    let mut layer = Layer {
        tree: Tree::new(root),
        limits,
        applied: Applied::default(),
        own: HashSet::new(),
    };
    let end = archive::entries(&mut capped, |entry| layer.entry(entry));
    if capped.limit() == 0 {
        let most = limits.bytes;
        return Err(LayerError::TooMuch {
            what: "bytes",
            most,
        });
    }
    end.map(|()| layer.applied)
}

struct Layer {
    tree: Tree,
    limits: Limits,
    applied: Applied,
    /// What this layer itself made: its whiteouts are for the layers below.
    own: HashSet<Path>,
}

impl Layer {
    fn entry<R: Read>(&mut self, entry: Entry<'_, R>) -> Result<(), LayerError> {
        self.applied.entries += 1;
        if self.applied.entries > self.limits.entries {
            let most = self.limits.entries;
            return Err(LayerError::TooMuch {
                what: "entries",
                most,
            });
        }
        let path = Path::parse(&entry.path)?;
        let shown = String::from_utf8_lossy(&entry.path).into_owned();
        if let Some((parent, name)) = path.split()
            && let Some(hidden) = name.as_bytes().strip_prefix(WHITEOUT)
        {
            let hidden = OsStr::from_bytes(hidden);
            let failed = |error| LayerError::Entry { path: shown, error };
            return self.white_out(&parent, name, hidden).map_err(failed);
        }
        self.make(&path, entry, &shown)
    }

    fn make<R: Read>(
        &mut self,
        path: &Path,
        mut entry: Entry<'_, R>,
        shown: &str,
    ) -> Result<(), LayerError> {
        // Old archives have directories as files whose names end so.
        let is_directory =
            entry.kind.is_dir() || (entry.kind.is_file() && entry.path.ends_with(b"/"));
        let bits = if is_directory { 0o1777 } else { 0o777 };
        let mode = Mode::from_raw_mode(entry.mode & bits);
        let failed = |error| LayerError::Entry {
            path: shown.to_owned(),
            error,
        };
        let kind = |what| LayerError::Kind {
            path: shown.to_owned(),
            what,
        };
        let link = entry.link.as_deref().unwrap_or_default();
        match entry.kind {
            _ if is_directory => {
                self.tree
                    .make_directory(path, mode | Mode::RWXU)
                    .map_err(failed)?;
            }
            EntryType::Regular | EntryType::Continuous => {
                let file = self.tree.make_file(path).map_err(failed)?;
                let mut file = File::from(file);
                let copied = io::copy(&mut entry.content, &mut file).map_err(failed)?;
                if copied != entry.content.size() {
                    return Err(archive::invalid("it ends within a file").into());
                }
                self.applied.bytes += copied;
                tree::finish(&file.into(), mode).map_err(failed)?;
            }
            EntryType::Symlink => {
                let target = path.link_target(link)?;
                self.tree.make_link(path, &target).map_err(failed)?;
            }
            EntryType::Link => {
                let of = Path::parse(link)?;
                self.tree.make_name(path, &of).map_err(failed)?;
            }
            EntryType::Char | EntryType::Block => return Err(kind("a device")),
            EntryType::Fifo => return Err(kind("a named pipe")),
            EntryType::GNUSparse => return Err(kind("a sparse file")),
            _ => return Err(kind("of a kind that is not known")),
        }
        let mut above = Some(path.clone());
        while let Some(made) = above {
            above = made.split().map(|(parent, _)| parent);
            if !self.own.insert(made) {
                break;
            }
        }
        Ok(())
    }

    fn white_out(&mut self, parent: &Path, name: &OsStr, hidden: &OsStr) -> io::Result<()> {
        if name.as_bytes() == OPAQUE {
            return self.hide_all_below(parent);
        }
        // As a name it must not be one that goes up; `.wh...` would be.
        let named = Path::parse(hidden.as_bytes());
        if !named.is_ok_and(|named| named.names().eq([hidden])) {
            return Err(archive::invalid("a whiteout of no name"));
        }
        self.hide(&parent.join(hidden))
    }

    /// Takes away what the layers below have in a directory.
    fn hide_all_below(&mut self, directory: &Path) -> io::Result<()> {
        for name in self.tree.names(directory)? {
            let path = directory.join(&name);
            if self.own.contains(&path) {
                self.hide_all_below(&path)?;
            } else {
                self.hide(&path)?;
            }
        }
        Ok(())
    }

    fn hide(&mut self, path: &Path) -> io::Result<()> {
        if !self.own.contains(path) {
            self.tree.remove(path)?;
            self.applied.removed += 1;
        }
        Ok(())
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests;
