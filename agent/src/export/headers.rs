//! The headers of requests to the collector, of which some may be secrets.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use axum::http::{HeaderName, HeaderValue};
use thiserror::Error;

use crate::config::Otlp;

/// Headers that cannot be sent.
#[derive(Debug, Error)]
pub enum HeadersError {
    /// The file cannot be read.
    #[error("cannot read otlp.headers_file {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Others can read the secrets, or change them.
    #[error(
        "otlp.headers_file {} is open to others (mode {mode:04o}); make it its owner's alone: \
         chmod 600 {}", path.display(), path.display()
    )]
    Open {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A line is no header.
    #[error("otlp.headers_file {}:{line}: write `Name: value`", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// A name or value is none that HTTP knows.
    #[error("the otlp header {name:?} has a name or value that HTTP does not allow")]
    Invalid {
        /// Its name.
        name: String,
    },
}

/// Whether the headers can be sent, as far as that shows without a collector.
pub fn check(otlp: &Otlp) -> Result<(), HeadersError> {
    all(otlp).map(drop)
}

/// The headers of the table and of the file, which wins.
pub(super) fn all(otlp: &Otlp) -> Result<HashMap<String, String>, HeadersError> {
    let table = otlp
        .headers
        .iter()
        .map(|(name, value)| (name.clone(), value.reveal().to_owned()));
    let mut headers = table.collect::<HashMap<_, _>>();
    if let Some(path) = &otlp.headers_file {
        let failed = |source| HeadersError::Read {
            path: path.clone(),
            source,
        };
        let mode = fs::metadata(path).map_err(failed)?.mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(HeadersError::Open {
                path: path.clone(),
                mode,
            });
        }
        for (index, line) in fs::read_to_string(path)
            .map_err(failed)?
            .lines()
            .enumerate()
        {
            if line.trim().is_empty() {
                continue;
            }
            let wrong = || HeadersError::Line {
                path: path.clone(),
                line: index + 1,
            };
            let (name, value) = line.split_once(':').ok_or_else(wrong)?;
            headers.insert(name.trim().to_owned(), value.trim().to_owned());
        }
    }
    for (name, value) in &headers {
        if name.parse::<HeaderName>().is_err() || value.parse::<HeaderValue>().is_err() {
            return Err(HeadersError::Invalid { name: name.clone() });
        }
    }
    Ok(headers)
}
