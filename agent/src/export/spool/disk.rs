//! The part of the spool that is on disk: files of JSON lines, oldest first out.

use std::collections::VecDeque;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, BufRead as _, BufReader, BufWriter, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::Items;
use crate::export::record::Record;

/// A directory that cannot hold the spool.
#[derive(Debug, Error)]
pub enum DiskError {
    /// It cannot be made or read.
    #[error("cannot use the spool directory {}: {source}", path.display())]
    Io {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Others can look into it.
    #[error(
        "the spool directory {0} is open to others (owner {owner}, mode {mode:04o}), and starts \
         tell of programs and their arguments; make it ours alone: \
         chown {me} {0} && chmod 700 {0}", path.display()
    )]
    Open {
        /// The directory.
        path: PathBuf,
        /// Who owns it.
        owner: u32,
        /// Its permission bits.
        mode: u32,
        /// Who should.
        me: u32,
    },
}

/// One file, known by its name: a sequence number and what is in it.
#[derive(Debug)]
struct SpoolFile {
    path: PathBuf,
    bytes: u64,
    items: Items,
}

/// Files in one directory, bounded in bytes.
#[derive(Debug)]
pub(crate) struct Disk {
    dir: PathBuf,
    max_bytes: u64,
    files: VecDeque<SpoolFile>,
    next: u64,
    /// The file whose records were handed out and are not yet known to be sent.
    taken: Option<PathBuf>,
}

impl Disk {
    /// Opens (and makes) `dir`, with what an earlier run left in it.
    pub(crate) fn open(dir: &Path, max_bytes: u64) -> Result<Self, DiskError> {
        let failed = |source| DiskError::Io {
            path: dir.into(),
            source,
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(failed)?;
        let metadata = fs::symlink_metadata(dir).map_err(failed)?;
        let me = rustix::process::geteuid().as_raw();
        if !metadata.is_dir() || metadata.uid() != me || metadata.mode() & 0o077 != 0 {
            let (owner, mode) = (metadata.uid(), metadata.mode() & 0o7777);
            return Err(DiskError::Open {
                path: dir.into(),
                owner,
                mode,
                me,
            });
        }
        let mut files = Vec::new();
        for entry in fs::read_dir(dir).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let path = entry.path();
            if path
                .extension()
                .is_some_and(|extension| extension == "part")
            {
                // Half written when the power went.
                fs::remove_file(&path).map_err(failed)?;
            } else if let Some((number, items)) = parse_name(&path) {
                let bytes = entry.metadata().map_err(failed)?.len();
                files.push((number, SpoolFile { path, bytes, items }));
            }
        }
        files.sort_by_key(|(number, _)| *number);
        let next = files.last().map_or(0, |(number, _)| number + 1);
        let files = files.into_iter().map(|(_, file)| file).collect();
        Ok(Self {
            dir: dir.into(),
            max_bytes,
            files,
            next,
            taken: None,
        })
    }

    /// Whether there is nothing that was not handed out.
    pub(super) fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// Bytes that were not handed out.
    pub(super) fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }

    /// Writes `records` behind the others, and removes the oldest files that are too many.
    /// Returns what those held.
    pub(super) fn keep(&mut self, records: &[Record]) -> io::Result<Items> {
        let items = Items::of(records);
        let name = format!("{:020}-{}-{}.jsonl", self.next, items.records, items.spans);
        let path = self.dir.join(&name);
        let part = self.dir.join(format!("{name}.part"));
        let bytes = write(&part, records).inspect_err(|_| {
            // Nothing can be done about a file that cannot be removed either.
            let _ = fs::remove_file(&part);
        })?;
        fs::rename(&part, &path)?;
        self.next += 1;
        self.files.push_back(SpoolFile { path, bytes, items });
        let mut lost = Items::default();
        while self.bytes() > self.max_bytes
            && let Some(oldest) = self.files.pop_front()
        {
            fs::remove_file(&oldest.path)?;
            lost = lost + oldest.items;
        }
        Ok(lost)
    }

    /// The records of the oldest file, and what of it could not be read.
    pub(super) fn take(&mut self) -> Option<(Vec<Record>, Items)> {
        self.done();
        let SpoolFile { path, items, .. } = self.files.pop_front()?;
        let records = read(&path).unwrap_or_else(|error| {
            tracing::warn!("cannot read {} from the spool: {error}", path.display());
            Vec::new()
        });
        let read = Items::of(&records);
        self.taken = Some(path);
        let unreadable = Items {
            records: items.records.saturating_sub(read.records),
            spans: items.spans.saturating_sub(read.spans),
        };
        Some((records, unreadable))
    }

    /// Whether records of a file were handed out and are not yet known to be sent.
    pub(super) const fn holds_taken(&self) -> bool {
        self.taken.is_some()
    }

    /// Removes the file whose records were handed out: they were sent.
    pub(super) fn done(&mut self) {
        if let Some(taken) = self.taken.take()
            && let Err(error) = fs::remove_file(&taken)
        {
            tracing::warn!("cannot remove {} from the spool: {error}", taken.display());
        }
    }
}

/// Number, records and spans of `NUMBER-RECORDS-SPANS.jsonl`.
fn parse_name(path: &Path) -> Option<(u64, Items)> {
    let mut fields = path
        .file_name()?
        .to_str()?
        .strip_suffix(".jsonl")?
        .split('-');
    let mut field = || fields.next()?.parse::<u64>().ok();
    let number = field()?;
    Some((
        number,
        Items {
            records: field()?,
            spans: field()?,
        },
    ))
}

fn write(path: &Path, records: &[Record]) -> io::Result<u64> {
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    let mut to = BufWriter::new(file);
    for record in records {
        serde_json::to_writer(&mut to, record)?;
        to.write_all(b"\n")?;
    }
    let file = to.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.sync_data()?;
    Ok(file.metadata()?.len())
}

fn read(path: &Path) -> io::Result<Vec<Record>> {
    let lines = BufReader::new(fs::File::open(path)?).lines();
    let records = lines.map(|line| Ok(serde_json::from_str(&line?).ok()));
    records.filter_map(Result::transpose).collect()
}
