//! The directory of the files: the one that is written, those before it, and how long the chain is.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use hearth_runtime::id::FunctionName;
use hearth_runtime::private::{self, DirectoryError};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, RenameFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use super::chain::{Break, Lines, Link, Why, read};
use super::entry::{Entry, Line};

/// The file that is written.
pub(super) const NAME: &str = "audit.jsonl";
/// How long the chain is.
pub(super) const HEAD: &str = "head";
/// What the names of files begin with that were written before, and what they end with: between
/// them is the number of their last line.
const BEFORE: (&str, &str) = ("audit-", ".jsonl");
/// The same of ends that were torn: between them is the number of the last line before.
const TORN: (&str, &str) = ("torn-", ".part");
/// Digits of such a number: names are in the order of the numbers.
const DIGITS: usize = 20;
/// No file of ours is larger.
const MAX_FILE: u64 = 128 << 20;
/// Times that a file is read again whose end is being written.
const AGAIN: u32 = 5;

/// A directory that is nobody else's, and files in it. No name leads out of it, none is a link.
#[derive(Debug)]
pub(super) struct Folder {
    pub(super) path: PathBuf,
    handle: OwnedFd,
}

/// A file that was written before, by the number of its last line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Kept(u64);

impl Kept {
    fn of(name: &str, (begin, end): (&str, &str)) -> Option<Self> {
        let digits = name.strip_prefix(begin)?.strip_suffix(end)?;
        let plain = digits.len() == DIGITS && digits.bytes().all(|byte| byte.is_ascii_digit());
        plain.then(|| digits.parse().ok().map(Self))?
    }

    fn name(self, (begin, end): (&str, &str)) -> String {
        format!("{begin}{:0DIGITS$}{end}", self.0)
    }
}

impl Folder {
    /// Made with mode 0700 where there is none, as is its parent.
    pub(super) fn make(path: &Path) -> Result<Self, DirectoryError> {
        if let Some(parent) = path.parent() {
            // Where it cannot be made, the next call says so.
            let _ = std::fs::DirBuilder::new().recursive(true).create(parent);
        }
        Ok(Self {
            path: path.into(),
            handle: private::directory(path)?,
        })
    }

    /// One that is there; nothing is made.
    fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(Self {
            path: path.into(),
            handle: rustix::fs::open(path, flags, Mode::empty())?,
        })
    }

    pub(super) fn file(&self, name: &str, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let mode = if flags.contains(OFlags::CREATE) {
            Mode::RUSR | Mode::WUSR
        } else {
            Mode::empty()
        };
        let file = rustix::fs::openat2(&self.handle, name, flags, mode, resolve)?;
        let status = rustix::fs::fstat(&file)?;
        if FileType::from_raw_mode(status.st_mode) != FileType::RegularFile {
            return Err(Errno::INVAL);
        }
        Ok(file)
    }

    /// All bytes of a file; none where there is no such file.
    pub(super) fn bytes(&self, name: &str) -> rustix::io::Result<Option<Vec<u8>>> {
        let file = match self.file(name, OFlags::RDONLY) {
            Ok(file) => file,
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut bytes = Vec::new();
        let mut chunk = vec![0; 64 << 10];
        loop {
            let at = bytes.len() as u64;
            let length =
                rustix::io::retry_on_intr(|| rustix::io::pread(&file, &mut chunk[..], at))?;
            if length == 0 {
                return Ok(Some(bytes));
            }
            if at > MAX_FILE {
                return Err(Errno::FBIG);
            }
            bytes.extend_from_slice(chunk.get(..length).unwrap_or_default());
        }
    }

    /// Files of one kind, the oldest first.
    fn names(&self, kind: (&str, &str)) -> rustix::io::Result<Vec<Kept>> {
        let mut found = Vec::new();
        for entry in Dir::read_from(&self.handle)? {
            let entry = entry?;
            found.extend(
                entry
                    .file_name()
                    .to_str()
                    .ok()
                    .and_then(|name| Kept::of(name, kind)),
            );
        }
        found.sort_unstable();
        Ok(found)
    }

    /// The last of the files before, with its number.
    pub(super) fn last(&self) -> rustix::io::Result<Option<(u64, Vec<u8>)>> {
        let Some(last) = self.names(BEFORE)?.pop() else {
            return Ok(None);
        };
        let bytes = self.bytes(&last.name(BEFORE))?;
        Ok(Some((last.0, bytes.unwrap_or_default())))
    }

    /// Puts the file that is written among those before it, and removes the oldest of these beyond
    /// `kept`. None that is there is replaced.
    pub(super) fn put_away(&self, last: u64, kept: usize) -> rustix::io::Result<()> {
        let mut name = Kept(last);
        loop {
            let to = name.name(BEFORE);
            let flags = RenameFlags::NOREPLACE;
            match rustix::fs::renameat_with(&self.handle, NAME, &self.handle, &*to, flags) {
                Err(Errno::EXIST) => name.0 += 1,
                Err(error) => return Err(error),
                Ok(()) => break,
            }
        }
        // One too many is no reason to write nothing.
        if let Err(error) = self.remove_oldest(BEFORE, kept) {
            tracing::warn!("the oldest file of the audit is not removed: {error}");
        }
        Ok(())
    }

    /// Whether what is written goes on where it did: `file`, where it is known, has that name still,
    /// and all of its `bytes`.
    pub(super) fn goes_on(&self, file: Option<&OwnedFd>, bytes: u64) -> rustix::io::Result<bool> {
        let named = match rustix::fs::statat(&self.handle, NAME, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Ok(bytes == 0),
            named => named?,
        };
        if FileType::from_raw_mode(named.st_mode) != FileType::RegularFile {
            return Err(Errno::INVAL);
        }
        let is_it = |status: &Stat| (status.st_dev, status.st_ino) == (named.st_dev, named.st_ino);
        let is_it = match file {
            Some(file) => is_it(&rustix::fs::fstat(file)?),
            None => true,
        };
        let is_whole = u64::try_from(named.st_size).unwrap_or_default() >= bytes;
        Ok(is_it && is_whole)
    }

    /// Keeps an end that was torn off in a file of its own, which nothing depends on.
    pub(super) fn keep_torn(&self, last: u64, torn: &[u8], kept: usize) -> rustix::io::Result<()> {
        let name = Kept(last).name(TORN);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC;
        write_all(&self.file(&name, flags)?, torn)?;
        self.remove_oldest(TORN, kept)
    }

    fn remove_oldest(&self, kind: (&str, &str), kept: usize) -> rustix::io::Result<()> {
        let all = self.names(kind)?;
        let beyond = all.len().saturating_sub(kept);
        for old in all.iter().take(beyond) {
            rustix::fs::unlinkat(&self.handle, &*old.name(kind), AtFlags::empty())?;
        }
        Ok(())
    }

    /// Has the names on disk, too.
    pub(super) fn sync(&self) -> rustix::io::Result<()> {
        rustix::fs::fsync(&self.handle)
    }

    /// How long the chain is, as that was written last: the number of its last line, and its link.
    pub(super) fn head(&self) -> Option<(u64, Link)> {
        let bytes = self.bytes(HEAD).ok()??;
        let text = std::str::from_utf8(&bytes).ok()?;
        let (seq, sum) = text.trim_end().split_once(' ')?;
        Some((seq.parse().ok()?, sum.parse().ok()?))
    }
}

/// The text of [`HEAD`]; it has always the same length, so that one write replaces it.
pub(super) fn head(seq: u64, sum: Link) -> String {
    format!("{seq:0DIGITS$} {sum}\n")
}

pub(super) fn write_all(file: &OwnedFd, mut bytes: &[u8]) -> rustix::io::Result<()> {
    while !bytes.is_empty() {
        let written = rustix::io::retry_on_intr(|| rustix::io::write(file, bytes))?;
        if written == 0 {
            return Err(Errno::IO);
        }
        bytes = bytes.get(written..).unwrap_or_default();
    }
    Ok(())
}

/// Which lines somebody wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// So many at most, the newest.
    pub last: usize,
    /// Only those before this one.
    pub before: Option<u64>,
    /// Only of this function.
    pub function: Option<FunctionName>,
}

/// The files, for who reads them; an agent may write meanwhile.
#[derive(Debug)]
pub struct Files(Folder);

/// What is wrong with them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The file.
    pub file: String,
    /// What is wrong, in plain words.
    pub what: String,
}

impl Files {
    /// Those in a directory.
    pub fn open(path: &Path) -> io::Result<Self> {
        Folder::open(path).map(Self)
    }

    /// Changes whenever something is written.
    #[must_use]
    pub fn stamp(&self) -> Option<(u64, i64)> {
        let status = rustix::fs::statat(&self.0.handle, NAME, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        Some((status.st_ino, status.st_size))
    }

    /// All lines that can be relied upon, the oldest first, and what is wrong with the files.
    pub fn read(&self) -> io::Result<(Lines, Vec<Found>)> {
        let mut attempt = 0;
        loop {
            let (lines, found, torn) = self.look()?;
            attempt += 1;
            // Whoever writes may be in the middle of it.
            if !torn || attempt > AGAIN {
                return Ok((lines, found));
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    }

    /// The text of some lines as it is in the files, the oldest first. Whether one follows from the
    /// one before is not looked at. One file at a time is in memory.
    pub fn some(&self, wanted: &Wanted) -> io::Result<String> {
        // First that which is written: where it is put away meanwhile its lines come again, and
        // have been seen.
        let written = self.0.bytes(NAME)?;
        let mut kept = self.0.names(BEFORE)?;
        let mut before = wanted.before.unwrap_or(u64::MAX);
        let mut found: Vec<String> = Vec::new();
        let mut bytes = written.unwrap_or_default();
        loop {
            for text in String::from_utf8_lossy(&bytes).lines().rev() {
                if found.len() == wanted.last {
                    break;
                }
                let Some(line) = serde_json::from_str::<Line>(text).ok() else {
                    continue;
                };
                let is_of =
                    wanted.function.is_none() || line.entry.function() == wanted.function.as_ref();
                if line.seq < before && is_of {
                    before = line.seq;
                    found.push(text.to_owned() + "\n");
                }
            }
            let Some(next) = kept.pop().filter(|_| found.len() < wanted.last) else {
                break;
            };
            bytes = self.0.bytes(&next.name(BEFORE))?.unwrap_or_default();
        }
        Ok(found.into_iter().rev().collect())
    }

    fn look(&self) -> io::Result<(Lines, Vec<Found>, bool)> {
        // Before the files: what is read of them then is at least as long.
        let head = self.0.head();
        let kept = self.0.names(BEFORE)?;
        let names = kept.iter().map(|kept| kept.name(BEFORE));
        let (mut lines, mut found): (Lines, Vec<Found>) = Default::default();
        let (mut last, mut torn) = (None, false);
        for name in names.chain([NAME.to_owned()]) {
            let Some(bytes) = self.0.bytes(&name)? else {
                continue;
            };
            let mut file = read(&bytes, last);
            if let Some(Break {
                why: Why::Begin, ..
            }) = file.broken
            {
                found.push(wrong(&name, file.broken));
                file = read(&bytes, None);
            }
            if file.broken.is_some() {
                torn |= file.broken.is_some_and(|broken| broken.why == Why::Torn);
                found.push(wrong(&name, file.broken));
            }
            last = file.last.or(last);
            for (line, _) in &file.lines {
                let Entry::Begin(begin) = &line.entry else {
                    continue;
                };
                found.extend(begin.found.iter().map(|what| Found {
                    file: name.clone(),
                    what: format!("an agent that began with line {} found: {what}", line.seq),
                }));
            }
            lines.append(&mut file.lines);
        }
        if let (Some((seq, _)), Some((line, _))) = (head, lines.last())
            && seq > line.seq
        {
            torn = true;
            found.push(Found {
                file: NAME.to_owned(),
                what: format!(
                    "lines {} to {seq} are missing at its end",
                    line.seq.saturating_add(1)
                ),
            });
        }
        if let (Some((seq, _)), true) = (head, lines.is_empty()) {
            found.push(Found {
                file: NAME.to_owned(),
                what: format!("all {seq} lines are missing"),
            });
        }
        let sums = lines.iter().map(|(line, sum)| (line.seq, *sum));
        let rewritten = head.filter(|(seq, sum)| {
            let mut sums = sums.clone();
            sums.any(|(of, is)| of == *seq && is != *sum)
        });
        if let Some((seq, _)) = rewritten {
            found.push(Found {
                file: NAME.to_owned(),
                what: format!("line {seq} is not the one that was written"),
            });
        }
        Ok((lines, found, torn))
    }
}

fn wrong(name: &str, broken: Option<Break>) -> Found {
    Found {
        file: name.to_owned(),
        what: broken.map_or_else(String::new, |broken| broken.to_string()),
    }
}
