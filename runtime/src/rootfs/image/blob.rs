//! Content by its digest, checked as it is read.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::document::{Descriptor, Index};
use super::{ImageError, open_file};

/// Bytes of a document: index, manifest or configuration.
const MAX_DOCUMENT: u64 = 4 * 1024 * 1024;

/// What content is named by: `sha256:` and 64 digits. It becomes part of a path, so that it is
/// nothing else.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(String);

impl Digest {
    /// The 64 digits.
    #[must_use]
    pub fn digits(&self) -> &str {
        self.0.strip_prefix("sha256:").unwrap_or_default()
    }
}

impl TryFrom<String> for Digest {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let digits = text.strip_prefix("sha256:").unwrap_or_default();
        let fits = digits.len() == 64
            && digits
                .bytes()
                .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if fits {
            return Ok(Self(text));
        }
        let shown: String = text.chars().take(100).collect();
        Err(format!(
            "`{shown}` is no digest: `sha256:` and 64 lowercase hexadecimal digits"
        ))
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The directory of a layout.
#[derive(Debug)]
pub(super) struct Blobs(OwnedFd);

impl Blobs {
    pub(super) fn open(layout: &Path) -> Result<Self, ImageError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match rustix::fs::open(layout, flags, Mode::empty()) {
            Ok(directory) => Ok(Self(directory)),
            Err(error) => Err(ImageError::Read {
                what: layout.display().to_string(),
                error: error.into(),
            }),
        }
    }

    /// What images there are.
    pub(super) fn index(&self) -> Result<Index, ImageError> {
        const NAME: &str = "index.json";
        let file = open_file(&self.0, NAME).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => ImageError::NoLayout("the directory".into()),
            _ => read_error(NAME)(error),
        })?;
        let mut bytes = Vec::new();
        file.take(MAX_DOCUMENT)
            .read_to_end(&mut bytes)
            .map_err(read_error(NAME))?;
        parse(NAME, &bytes)
    }

    /// A document, whole and verified.
    pub(super) fn document<T: DeserializeOwned>(
        &self,
        named: &Descriptor,
    ) -> Result<T, ImageError> {
        if named.size > MAX_DOCUMENT {
            return Err(ImageError::Unsupported {
                what: format!("a document of {} bytes ({})", named.size, named.digest),
                remedy: "no index, manifest or configuration has more than 4 MiB",
            });
        }
        let mut blob = self.open_blob(named)?;
        let mut bytes = Vec::new();
        let what = named.digest.to_string();
        blob.read_to_end(&mut bytes).map_err(read_error(&what))?;
        blob.verify()?;
        parse(&what, &bytes)
    }

    /// A blob to be read; [`Blob::verify`] says whether it was the right one.
    pub(super) fn open_blob(&self, named: &Descriptor) -> Result<Blob, ImageError> {
        let path = format!("blobs/sha256/{}", named.digest.digits());
        let what = named.digest.to_string();
        let file = open_file(&self.0, &path).map_err(read_error(&what))?;
        let found = file.metadata().map_err(read_error(&what))?.len();
        if found != named.size {
            return Err(ImageError::Size {
                digest: named.digest.clone(),
                expected: named.size,
                found,
            });
        }
        Ok(Blob {
            file,
            expected: named.digest.clone(),
            sum: Sha256::new(),
        })
    }
}

/// Content that is being read.
pub(super) struct Blob {
    file: File,
    expected: Digest,
    sum: Sha256,
}

impl Blob {
    /// Reads what is left, and says whether all of it was what its digest names.
    pub(super) fn verify(mut self) -> Result<(), ImageError> {
        let what = self.expected.to_string();
        io::copy(&mut self, &mut io::sink()).map_err(read_error(&what))?;
        let sum = format!("{:x}", self.sum.finalize());
        if sum == self.expected.digits() {
            return Ok(());
        }
        Err(ImageError::Digest {
            expected: self.expected,
            found: format!("sha256:{sum}"),
        })
    }
}

impl Read for Blob {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(into)?;
        self.sum.update(into.get(..read).unwrap_or_default());
        Ok(read)
    }
}

fn parse<T: DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<T, ImageError> {
    serde_json::from_slice(bytes).map_err(|error| ImageError::Document {
        what: what.to_owned(),
        error,
    })
}

fn read_error(what: &str) -> impl Fn(io::Error) -> ImageError {
    let what = what.to_owned();
    move |error| ImageError::Read {
        what: what.clone(),
        error,
    }
}
