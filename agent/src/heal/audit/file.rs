//! The file that is written: by one agent at a time, appended to, put away when it is large.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use hearth_runtime::id::FunctionName;
use hearth_runtime::private::DirectoryError;
use rustix::fs::{FlockOperation, OFlags};
use rustix::io::Errno;

use super::chain::{self, Break, Link, Why};
use super::entry::{Begin, Entry, Fails, Line, Outcome, Resolved};
use super::folder::{Folder, HEAD, NAME, head, write_all};
use super::standing::Standing;
use crate::time::Boottime;

/// Version of the format.
const VERSION: u32 = 1;
/// Held by the agent that writes.
const LOCK: &str = "lock";
/// Files, the one that is written among them.
const FILES: usize = 8;
/// Ends that were torn off.
const TORN: usize = 8;

/// Why there is no audit, or a line is not in it.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The directory is not one that only we can write to.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// Another agent writes there.
    #[error("another hearth writes to {}; give each its own heal.audit_dir", .0.display())]
    Busy(PathBuf),
    /// A call to the kernel failed.
    #[error("cannot {what} in {}: {error}", path.display())]
    Io {
        /// The directory.
        path: PathBuf,
        /// What was being done.
        what: &'static str,
        /// The kernel's answer.
        error: io::Error,
    },
    /// It has no JSON.
    #[error("cannot write a line as JSON: {0}")]
    Json(#[from] serde_json::Error),
}

/// The file, with the right to write to it.
#[derive(Debug)]
pub struct Audit {
    folder: Folder,
    /// Held for as long as this is; the kernel takes it back when we die.
    _lock: OwnedFd,
    file: Option<OwnedFd>,
    /// Bytes of whole lines in it.
    bytes: u64,
    /// It may have more than those.
    is_torn: bool,
    /// Bytes that one file may have.
    max: u64,
    seq: u64,
    last: Link,
    boot_id: String,
    standing: Standing,
    /// What was found wrong, in plain words.
    found: Vec<String>,
    /// Bytes of a torn end, which were put aside.
    torn_bytes: u64,
    /// This agent has begun in it.
    has_begun: bool,
}

/// What an agent before this one left.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Opened {
    /// What is wrong with it, in plain words.
    pub found: Vec<String>,
    /// Bytes of a torn end, which were put aside.
    pub torn_bytes: u64,
}

impl Audit {
    /// Opens what is in `directory`, made where there is none. All files together have about
    /// `bytes` at most. What is wrong with the files is told, and put aside; nothing is lost of what
    /// stands before.
    pub fn open(directory: &Path, bytes: u64, boot_id: &str) -> Result<(Self, Opened), AuditError> {
        let folder = Folder::make(directory)?;
        let lock = folder
            .file(LOCK, OFlags::RDWR | OFlags::CREATE)
            .map_err(failed(&folder, "open the lock"))?;
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Err(AuditError::Busy(directory.into())),
            Err(error) => return Err(failed(&folder, "lock it")(error)),
        }
        let content = folder
            .bytes(NAME)
            .map_err(failed(&folder, "read the file"))?;
        let before = folder
            .last()
            .map_err(failed(&folder, "read the file before"))?;
        let head = folder.head();
        let mut audit = Self {
            folder,
            _lock: lock,
            file: None,
            bytes: 0,
            is_torn: false,
            max: bytes / FILES as u64,
            seq: 0,
            last: Link::default(),
            boot_id: boot_id.to_owned(),
            standing: Standing::default(),
            found: Vec::new(),
            torn_bytes: 0,
            has_begun: false,
        };
        if let Some((number, content)) = before {
            // Where the file that is written has nothing yet, it goes on from here.
            let _ = audit.take_in(&content);
            audit.seq = audit.seq.max(number);
            (audit.bytes, audit.is_torn) = (0, false);
        }
        let content = content.unwrap_or_default();
        let broken = audit.take_in(&content);
        audit.settle(broken);
        audit.compare(head);
        let opened = Opened {
            found: audit.found.clone(),
            torn_bytes: audit.torn_bytes,
        };
        Ok((audit, opened))
    }

    /// What a file says; where it does not go on, and the bytes from there.
    fn take_in<'a>(&mut self, content: &'a [u8]) -> Option<(Break, &'a [u8])> {
        let read = chain::read(content, None);
        for (line, _) in &read.lines {
            self.standing.apply(line);
            self.seq = self.seq.max(line.seq);
        }
        self.last = read.last.unwrap_or(self.last);
        self.bytes = read.bytes as u64;
        Some((read.broken?, content.get(read.bytes..)?))
    }

    /// What is torn is put aside, and cut off with the first line that is written. What is damaged
    /// is told.
    fn settle(&mut self, broken: Option<(Break, &[u8])>) {
        match broken {
            Some((Break { why: Why::Torn, .. }, torn)) => {
                self.is_torn = true;
                self.torn_bytes = torn.len() as u64;
                if let Err(error) = self.folder.keep_torn(self.seq, torn, TORN) {
                    tracing::warn!("a torn line of the audit is not put aside: {error}");
                }
            }
            Some((broken, _)) => self.found.push(format!("{NAME}: {broken}")),
            None => {}
        }
    }

    /// Whether the chain is as long as it was.
    fn compare(&mut self, head: Option<(u64, Link)>) {
        let Some((seq, sum)) = head else { return };
        if seq > self.seq {
            self.found.push(format!(
                "{NAME}: lines {} to {seq} are missing",
                self.seq.saturating_add(1)
            ));
            // No number is given twice.
            self.seq = seq;
        } else if seq == self.seq && sum != self.last {
            self.found.push(format!(
                "{NAME}: line {seq} is not the one that was written"
            ));
        }
    }

    /// What follows from all lines.
    #[must_use]
    pub const fn standing(&self) -> &Standing {
        &self.standing
    }

    /// A function is gone, though that cannot be written.
    pub(in crate::heal) fn forget(&mut self, function: &FunctionName) {
        self.standing.forget(function);
    }

    /// Writes lines, all of them or none, and has them on disk when it returns; their numbers, and
    /// the chain up to the last of them.
    pub fn append(
        &mut self,
        at: Boottime,
        unix_ms: u64,
        entries: &[Entry],
    ) -> Result<(Vec<u64>, Link), AuditError> {
        self.begin(at, unix_ms)?;
        self.write(at, unix_ms, entries)
    }

    /// Says that this agent begins, once; what the one before had under way is settled.
    pub(in crate::heal) fn begin(&mut self, at: Boottime, unix_ms: u64) -> Result<(), AuditError> {
        if self.has_begun {
            return Ok(());
        }
        self.take_hold()?;
        // A file that is not as it was stays as it is, for who wants to look at it.
        if !self.found.is_empty() {
            self.put_away("put the damaged file away")?;
        }
        let begin = Entry::Begin(self.state());
        let open: Vec<_> = self.standing.open().cloned().collect();
        let unknown = open.into_iter().map(|open| {
            Entry::Outcome(Outcome {
                of: open.of,
                function: open.function,
                action: open.action,
                outcome: Resolved::Unknown,
                sandbox: None,
                memory_bytes: None,
                request: None,
                took_ms: None,
                why: "the agent ended".to_owned(),
            })
        });
        let entries: Vec<Entry> = [begin].into_iter().chain(unknown).collect();
        self.write(at, unix_ms, &entries)?;
        self.has_begun = true;
        Ok(())
    }

    /// Functions that fail since this boot.
    fn failing(&self) -> Vec<Fails> {
        if self.standing.boot_id() == self.boot_id {
            self.standing.all_failing()
        } else {
            Vec::new()
        }
    }

    fn state(&self) -> Begin {
        Begin {
            version: VERSION,
            after: self.last.to_string(),
            boot_id: self.boot_id.clone(),
            raised: self.standing.all_raised(),
            failing: self.failing(),
            open: self.standing.open().cloned().collect(),
            found: self.found.clone(),
            torn_bytes: self.torn_bytes,
        }
    }

    fn write(
        &mut self,
        at: Boottime,
        unix_ms: u64,
        entries: &[Entry],
    ) -> Result<(Vec<u64>, Link), AuditError> {
        let mut out = Vec::new();
        self.take_hold()?;
        let (mut seq, mut sum) = (self.seq, self.last);
        let is_new = self.bytes == 0;
        let state = Entry::Begin(self.state());
        let begins = matches!(entries.first(), Some(Entry::Begin(_)));
        let first = (is_new && !begins).then_some(&state);
        let mut numbers = Vec::new();
        let mut lines = Vec::new();
        for entry in first.into_iter().chain(entries) {
            seq += 1;
            let line = Line {
                seq,
                unix_ms,
                at,
                entry: entry.clone(),
            };
            sum = chain::write(&line, sum, &mut out)?;
            numbers.push(seq);
            lines.push(line);
        }
        let length = out.len() as u64;
        if !is_new && self.bytes + length > self.max {
            self.put_away("put the full file away")?;
            return self.write(at, unix_ms, entries);
        }
        self.put(&out)?;
        self.bytes += length;
        (self.seq, self.last) = (seq, sum);
        if begins || is_new {
            // It is told.
            (self.found, self.torn_bytes) = (Vec::new(), 0);
        }
        for line in &lines {
            self.standing.apply(line);
        }
        self.write_head();
        Ok((numbers.split_off(usize::from(first.is_some())), sum))
    }

    /// The next line begins a file.
    fn put_away(&mut self, what: &'static str) -> Result<(), AuditError> {
        match self.folder.put_away(self.seq, FILES - 1) {
            // Somebody has removed it, or it was put away before and that was not noted.
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(failed(&self.folder, what)(error)),
        }
        (self.file, self.bytes, self.is_torn) = (None, 0, false);
        Ok(())
    }

    /// Where somebody has removed the file, or has put it elsewhere, the next line begins another
    /// one, and says so.
    fn take_hold(&mut self) -> Result<(), AuditError> {
        let goes_on = self.folder.goes_on(self.file.as_ref(), self.bytes);
        if goes_on.map_err(failed(&self.folder, "look at the file"))? {
            return Ok(());
        }
        let found = format!("{NAME}: it was removed or replaced after line {}", self.seq);
        tracing::warn!("the audit in {}: {found}", self.folder.path.display());
        self.found.push(found);
        self.put_away("put away what is in its place")
    }

    /// All bytes are on disk, or none is in the file.
    fn put(&mut self, bytes: &[u8]) -> Result<(), AuditError> {
        let folder = &self.folder;
        let is_new = self.bytes == 0;
        let file = if let Some(file) = &self.file {
            file
        } else {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::APPEND;
            let opened = folder.file(NAME, flags);
            self.file
                .insert(opened.map_err(failed(folder, "open the file"))?)
        };
        if self.is_torn {
            rustix::fs::ftruncate(file, self.bytes).map_err(failed(folder, "cut a torn line"))?;
            self.is_torn = false;
        }
        let written = write_all(file, bytes)
            .and_then(|()| rustix::fs::fdatasync(file))
            // A line is on disk when its file's name is, too.
            .and_then(|()| if is_new { folder.sync() } else { Ok(()) });
        if let Err(error) = written {
            self.is_torn = rustix::fs::ftruncate(file, self.bytes).is_err();
            return Err(failed(folder, "write a line")(error));
        }
        Ok(())
    }

    /// A head that is too short hides nothing but that lines were taken away: it is no reason to do
    /// nothing.
    fn write_head(&self) {
        let written = self
            .folder
            .file(HEAD, OFlags::WRONLY | OFlags::CREATE)
            .and_then(|file| write_all(&file, head(self.seq, self.last).as_bytes()));
        if let Err(error) = written {
            tracing::warn!("how long the audit is cannot be written: {error}");
        }
    }
}

fn failed(folder: &Folder, what: &'static str) -> impl Fn(Errno) -> AuditError {
    let path = folder.path.clone();
    move |error| AuditError::Io {
        path: path.clone(),
        what,
        error: error.into(),
    }
}
