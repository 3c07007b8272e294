//! Traces from files.

use std::fmt;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use super::lines::{Lines, ReadError};
use super::trace::Trace;
use super::{azure_2019, azure_2021, recorded};

/// How a trace is written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A day of the Azure Functions trace of 2019: requests by function and minute.
    Azure2019,
    /// Two weeks of the Azure Functions trace of 2021: each request.
    Azure2021,
    /// What a node recorded of its own pools.
    Recording,
}

impl Format {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Azure2019, Self::Azure2021, Self::Recording];

    /// The word for it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Azure2019 => "azure-2019",
            Self::Azure2021 => "azure-2021",
            Self::Recording => "recording",
        }
    }

    /// That of a file with this first line.
    fn of(first: &str) -> Option<Self> {
        if first.starts_with("HashOwner,") {
            Some(Self::Azure2019)
        } else if first.starts_with("app,func,") {
            Some(Self::Azure2021)
        } else {
            first.starts_with('{').then_some(Self::Recording)
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

/// No format is called so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no format is called `{0}`: there are azure-2019, azure-2021 and recording")]
pub struct UnknownFormat(String);

impl FromStr for Format {
    type Err = UnknownFormat;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|format| format.word() == text);
        found.ok_or_else(|| UnknownFormat(text.chars().take(60).collect()))
    }
}

/// How much of a file is read, and what stands in for what it does not tell.
#[derive(Clone, Debug, PartialEq)]
pub struct Reading {
    /// Share of apps that are taken, each with all of its functions.
    pub share: f64,
    /// Requests at most.
    pub requests: usize,
    /// How long an instance takes to start.
    pub start: Duration,
    /// How long a request takes.
    pub work: Duration,
    /// Memory of an instance, in bytes.
    pub memory_bytes: u64,
}

impl Default for Reading {
    fn default() -> Self {
        Self {
            share: 1.0,
            requests: 20_000_000,
            start: Duration::from_millis(500),
            work: Duration::from_secs(1),
            memory_bytes: 175 << 20,
        }
    }
}

impl Reading {
    /// Whether the app of that name is taken: always the same ones.
    pub(super) fn takes(&self, app: &str) -> bool {
        f64::from(crc32fast::hash(app.as_bytes())) < self.share * 4_294_967_296.0
    }

    /// Reads a file in the format that it has, where none is named; and says what stands in for
    /// something that was not there.
    pub fn read(
        &self,
        file: &Path,
        format: Option<Format>,
    ) -> Result<(Trace, Vec<String>), ReadError> {
        let mut reader = open(file)?;
        let format = match format {
            Some(format) => format,
            None => found(file, &mut reader)?,
        };
        match format {
            Format::Azure2019 => azure_2019::read(file, self),
            Format::Azure2021 => azure_2021::read(file, reader, self).map(|trace| (trace, vec![])),
            Format::Recording => recorded::trace(file, reader, self).map(|trace| (trace, vec![])),
        }
    }
}

/// The file's format, by its beginning, which is left in the reader.
fn found(file: &Path, reader: &mut BufReader<File>) -> Result<Format, ReadError> {
    let begin = reader.fill_buf().map_err(|error| ReadError::Io {
        file: file.to_owned(),
        error,
    })?;
    let begin = String::from_utf8_lossy(begin);
    let first = begin.lines().next().unwrap_or_default();
    Format::of(first).ok_or_else(|| {
        let mut lines = Lines::new(file, first.as_bytes());
        let remedy = "the first one of a trace of Azure Functions or of a recording (--format \
                      names the format)";
        match lines.next() {
            Ok(Some(line)) => line.wrong("the line", remedy),
            Ok(None) => ReadError::Value {
                file: file.to_owned(),
                line: 1,
                field: "the line".to_owned(),
                value: String::new(),
                remedy: remedy.to_owned(),
            },
            Err(error) => error,
        }
    })
}

pub(super) fn open(file: &Path) -> Result<BufReader<File>, ReadError> {
    let opened = File::open(file).map_err(|error| ReadError::Io {
        file: file.to_owned(),
        error,
    });
    opened.map(BufReader::new)
}
