//! Events as JSON lines: recorded marks are the fixtures of the fold.
//!
//! The first line says where the recording is from; each other line is one event, in the
//! order in which the ring gave it. Members that are zero are left out.

use std::io::{self, BufRead, Write};

use hearth_abi::{Counters, Kind, Mark, Text};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::text::until_zero;
use crate::kernel::event::Event;

/// Version of the format.
const VERSION: u32 = 1;

/// Where a recording is from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// Version of the format.
    pub recording: u32,
    /// Release of the kernel (`uname -r`).
    pub kernel: String,
    /// Process id of the `hearth trace` that recorded it; the daemon has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<u32>,
}

impl Origin {
    /// Of this kernel.
    #[must_use]
    pub fn here(source: Option<u32>) -> Self {
        let kernel = rustix::system::uname()
            .release()
            .to_string_lossy()
            .into_owned();
        Self {
            recording: VERSION,
            kernel,
            source,
        }
    }
}

/// Writes events as they come.
#[derive(Debug)]
pub struct Recorder<W> {
    to: W,
}

/// What is wrong with a recording.
#[derive(Debug, Error)]
pub enum RecordingError {
    /// It cannot be read.
    #[error("line {line} of the recording cannot be read: {source}")]
    Read {
        /// From 1.
        line: usize,
        /// Why.
        source: io::Error,
    },
    /// A line is not what it must be.
    #[error("line {line} of the recording is no event: {source}; record it again with this build")]
    Line {
        /// From 1.
        line: usize,
        /// Why.
        source: serde_json::Error,
    },
    /// A version of the future.
    #[error("the recording has version {0} and this build reads {VERSION}; record it again")]
    Version(u32),
    /// Nothing at all.
    #[error("the recording is empty; its first line says where it is from")]
    Empty,
}

impl<W: Write> Recorder<W> {
    /// Begins a recording.
    pub fn new(mut to: W, origin: &Origin) -> io::Result<Self> {
        line(&mut to, origin)?;
        Ok(Self { to })
    }

    /// Adds one event; those of other signals than cold starts have no line.
    pub fn record(&mut self, event: &Event) -> io::Result<()> {
        match Line::of(event) {
            Some(event) => line(&mut self.to, &event),
            None => Ok(()),
        }
    }

    /// Ends the recording.
    pub fn finish(mut self) -> io::Result<()> {
        self.to.flush()
    }
}

fn line(to: &mut impl Write, value: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *to, value)?;
    to.write_all(b"\n")
}

/// Reads a whole recording.
pub fn read(from: impl BufRead) -> Result<(Origin, Vec<Event>), RecordingError> {
    let mut origin = None;
    let mut events = Vec::new();
    for (index, text) in from.lines().enumerate() {
        let number = index + 1;
        let text = text.map_err(|source| RecordingError::Read {
            line: number,
            source,
        })?;
        let wrong = |source| RecordingError::Line {
            line: number,
            source,
        };
        if index == 0 {
            let from: Origin = serde_json::from_str(&text).map_err(wrong)?;
            if from.recording != VERSION {
                return Err(RecordingError::Version(from.recording));
            }
            origin = Some(from);
        } else {
            let line: Line = serde_json::from_str(&text).map_err(wrong)?;
            events.push(line.into());
        }
    }
    Ok((origin.ok_or(RecordingError::Empty)?, events))
}

/// One event.
#[derive(Serialize, Deserialize)]
struct Line {
    kind: Word,
    at: u64,
    tgid: u32,
    #[serde(flatten)]
    rest: Rest,
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Rest {
    Text {
        id: u64,
        long: String,
        #[serde(default, skip_serializing_if = "is_zero")]
        start: u64,
        #[serde(default, skip_serializing_if = "String::is_empty")]
        short: String,
    },
    Mark(Box<MarkRest>),
}

/// A mark; the names are those of the record.
#[derive(Serialize, Deserialize)]
struct MarkRest {
    tid: u32,
    start: u64,
    parent: u32,
    threads: u32,
    cpu: u32,
    #[serde(default, skip_serializing_if = "is_zero")]
    flags: u16,
    #[serde(default, skip_serializing_if = "is_zero")]
    cgroup: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    watch: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    args: [u64; 3],
    /// In the order of the record: switches, faults, bytes, delay, the four causes.
    #[serde(default, skip_serializing_if = "is_zero")]
    counters: [u64; 10],
}

fn is_zero<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// A kind by its name.
#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
struct Word(Kind);

impl From<Word> for String {
    fn from(Word(kind): Word) -> Self {
        format!("{kind:?}")
    }
}

impl TryFrom<String> for Word {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        let kind = Kind::ALL
            .into_iter()
            .find(|kind| format!("{kind:?}") == name);
        kind.map(Word)
            .ok_or_else(|| format!("kind {name:?} is not known"))
    }
}

impl Line {
    fn of(event: &Event) -> Option<Self> {
        Some(match event {
            Event::Text(kind, text) => Self {
                kind: Word(*kind),
                at: text.boottime_ns,
                tgid: text.tgid,
                rest: Rest::Text {
                    id: text.id,
                    long: until_zero(&text.long).into_owned(),
                    start: text.start_boottime,
                    short: until_zero(&text.short).into_owned(),
                },
            },
            Event::Oom(_) | Event::LockWait(_) => return None,
            Event::Mark(kind, mark) => {
                let c = &mark.counters;
                let rest = MarkRest {
                    tid: mark.tid,
                    start: mark.start_boottime,
                    parent: mark.parent,
                    threads: mark.threads,
                    cpu: mark.cpu,
                    flags: mark.flags,
                    cgroup: mark.cgroup,
                    watch: mark.watch,
                    args: mark.args,
                    counters: [
                        c.nvcsw.into(),
                        c.nivcsw.into(),
                        c.minor_faults.into(),
                        c.major_faults.into(),
                        c.read_bytes,
                        c.run_delay_ns,
                        c.running_ns,
                        c.queued_ns,
                        c.io_ns,
                        c.blocked_ns,
                    ],
                };
                Self {
                    kind: Word(*kind),
                    at: mark.boottime_ns,
                    tgid: mark.tgid,
                    rest: Rest::Mark(Box::new(rest)),
                }
            }
        })
    }
}

impl From<Line> for Event {
    fn from(line: Line) -> Self {
        let Word(kind) = line.kind;
        let small = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
        match line.rest {
            Rest::Text {
                id,
                long,
                start,
                short,
            } => {
                let mut text = Text {
                    kind: kind as u16,
                    flags: 0,
                    tgid: line.tgid,
                    boottime_ns: line.at,
                    start_boottime: start,
                    id,
                    long: [0; hearth_abi::TEXT_LONG],
                    short: [0; hearth_abi::TEXT_SHORT],
                };
                put(&mut text.long, &long);
                put(&mut text.short, &short);
                Self::Text(kind, text)
            }
            Rest::Mark(rest) => {
                let c = rest.counters;
                let mark = Mark {
                    kind: kind as u16,
                    flags: rest.flags,
                    cpu: rest.cpu,
                    boottime_ns: line.at,
                    tid: rest.tid,
                    tgid: line.tgid,
                    start_boottime: rest.start,
                    parent: rest.parent,
                    threads: rest.threads,
                    cgroup: rest.cgroup,
                    watch: rest.watch,
                    args: rest.args,
                    counters: Counters {
                        nvcsw: small(c[0]),
                        nivcsw: small(c[1]),
                        minor_faults: small(c[2]),
                        major_faults: small(c[3]),
                        read_bytes: c[4],
                        run_delay_ns: c[5],
                        running_ns: c[6],
                        queued_ns: c[7],
                        io_ns: c[8],
                        blocked_ns: c[9],
                    },
                };
                Self::Mark(kind, mark)
            }
        }
    }
}

/// As the kernel puts a string: cut, with a zero at its end.
fn put(array: &mut [u8], text: &str) {
    let length = text.len().min(array.len() - 1);
    array[..length].copy_from_slice(&text.as_bytes()[..length]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_read_back_as_they_were_recorded() {
        let mut text = Text {
            kind: Kind::ExecText as u16,
            flags: 0,
            tgid: 7,
            boottime_ns: 11,
            start_boottime: 5,
            id: 99,
            long: [0; hearth_abi::TEXT_LONG],
            short: [0; hearth_abi::TEXT_SHORT],
        };
        put(&mut text.long, "/usr/bin/true");
        put(&mut text.short, "true");
        let mark = Mark {
            kind: Kind::Exec as u16,
            flags: 9,
            cpu: 1,
            boottime_ns: 11,
            tid: 8,
            tgid: 7,
            start_boottime: 5,
            parent: 1,
            threads: 2,
            cgroup: 3,
            watch: 4,
            args: [99, u64::MAX, 1],
            counters: Counters {
                nvcsw: 1,
                blocked_ns: u64::MAX,
                ..Counters::default()
            },
        };
        let events = [
            Event::Mark(Kind::Exec, mark),
            Event::Text(Kind::ExecText, text),
        ];
        let origin = Origin::here(Some(12));
        let mut bytes = Vec::new();
        let mut recorder = Recorder::new(&mut bytes, &origin).expect("memory");
        for event in &events {
            recorder.record(event).expect("memory");
        }
        recorder.finish().expect("memory");
        let (from, read) = read(&bytes[..]).expect("what was written");
        assert_eq!((from, &read[..]), (origin, &events[..]));
    }

    #[test]
    fn a_bad_recording_says_which_line_and_what_to_do() {
        let error = |text: &str| read(text.as_bytes()).expect_err(text).to_string();
        assert!(error("").contains("empty"));
        assert!(error("{\"recording\":2,\"kernel\":\"6.1\"}").contains("version 2"));
        let head = "{\"recording\":1,\"kernel\":\"6.1\"}\n";
        let wrong = error(&format!(
            "{head}{{\"kind\":\"Nope\",\"at\":1,\"tgid\":1}}\n"
        ));
        assert!(
            wrong.starts_with("line 2") && wrong.contains("\"Nope\""),
            "{wrong}"
        );
    }
}
