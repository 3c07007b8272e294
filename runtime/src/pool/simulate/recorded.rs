//! What a node recorded of its own pools: JSON lines, the first of which says that it is that, and
//! each other one what its fleet was told when, and what it wanted done.
//!
//! It has two uses. [`replay`] tells a fleet the same, and compares what that wants. [`trace`] takes
//! only who came when for which function, how long requests and starts took, and how much memory
//! instances did: for a simulation with any policy.

use std::collections::{BTreeMap, HashMap};
use std::io::BufRead;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::super::{Action, Fleet, Input, Moment, Ticket};
use super::lines::{Line, Lines, ReadError};
use super::reading::Reading;
use super::trace::{Builder, Function, Trace};
use crate::id::FunctionName;

/// What a recording of this kind begins with.
const VERSION: u32 = 1;

/// Instances that a function of a recording may have: they are all there at once in a replay.
const INSTANCES: u32 = 100_000;

/// The first line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Head {
    /// The version of what follows.
    pub hearth_recording: u32,
}

impl Default for Head {
    fn default() -> Self {
        Self {
            hearth_recording: VERSION,
        }
    }
}

/// Every other line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// When.
    pub at: Moment,
    /// What the fleet was told.
    #[serde(flatten)]
    pub input: Input,
    /// What it wanted done.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub actions: Vec<Action>,
}

/// A fleet that was told the same wanted something else.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// In which line, from 1.
    pub line: u64,
    /// What it was told.
    pub input: Input,
    /// What was recorded.
    pub recorded: Vec<Action>,
    /// What it wanted now.
    pub replayed: Vec<Action>,
}

/// Why a recording is not what a fleet does.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// It cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A fleet that was told the same wanted something else.
    #[error(
        "line {}: told {:?}, the fleet wants {:?}, but it was recorded that it wanted {:?}",
        .0.line, .0.input, .0.replayed, .0.recorded
    )]
    Different(Box<Difference>),
}

/// Tells a new fleet what was recorded, and compares what it wants; how many inputs there were.
pub fn replay(file: &Path, reader: impl BufRead) -> Result<u64, ReplayError> {
    let mut fleet = Fleet::default();
    let mut inputs = 0;
    let mut difference = None;
    each(file, reader, &mut |line, record| {
        if difference.is_some() {
            return Ok(());
        }
        if let Input::Deploy { settings, .. } = &record.input
            && settings.max > INSTANCES
        {
            let remedy = format!("at most {INSTANCES}");
            return Err(line.wrong_value("settings.max", &settings.max.to_string(), &remedy));
        }
        inputs += 1;
        let replayed = fleet.apply(record.at, record.input.clone());
        if replayed != record.actions {
            difference = Some(Difference {
                line: line.nth(),
                input: record.input,
                recorded: record.actions,
                replayed,
            });
        }
        Ok(())
    })?;
    match difference {
        None => Ok(inputs),
        Some(difference) => Err(ReplayError::Different(Box::new(difference))),
    }
}

/// Reads the requests of a recording; `file` is what errors call it.
pub fn trace(file: &Path, reader: impl BufRead, reading: &Reading) -> Result<Trace, ReadError> {
    let mut seen = Seen::default();
    each(file, reader, &mut |line, record| {
        seen.begin.get_or_insert(record.at);
        seen.end = seen.end.max(record.at);
        if seen.arrivals.len() >= reading.requests {
            let limit = reading.requests;
            return Err(line.too_many(super::TooMany { limit }));
        }
        seen.note(record);
        Ok(())
    })?;
    Ok(seen.trace(reading))
}

fn each(
    file: &Path,
    reader: impl BufRead,
    tell: &mut dyn FnMut(Line<'_>, Record) -> Result<(), ReadError>,
) -> Result<(), ReadError> {
    let mut lines = Lines::new(file, reader);
    let Some(first) = lines.next()? else {
        return Ok(());
    };
    if serde_json::from_str(first.text).ok() != Some(Head::default()) {
        let remedy = format!("{{\"hearth_recording\":{VERSION}}}");
        return Err(first.wrong("the line", &remedy));
    }
    while let Some(line) = lines.next()? {
        if line.text.is_empty() {
            continue;
        }
        let record = serde_json::from_str(line.text);
        let record = record.map_err(|error| {
            line.wrong(
                "the line",
                &format!("an input with its `at` and `actions` ({error})"),
            )
        })?;
        tell(line, record)?;
    }
    Ok(())
}

/// What of a recording goes into a trace.
#[derive(Default)]
struct Seen {
    begin: Option<Moment>,
    end: Moment,
    functions: BTreeMap<FunctionName, Kind>,
    /// Each request: its function, and how long that was at work on it.
    arrivals: Vec<(FunctionName, Moment, Option<Duration>)>,
    waiting: HashMap<Ticket, usize>,
    /// Which request which instance is at work on.
    busy: HashMap<super::super::Instance, usize>,
}

/// What is known of a function.
#[derive(Default)]
struct Kind {
    /// By its settings.
    declared: Option<u64>,
    /// As it was weighed last.
    memory_bytes: Option<u64>,
    starts: Vec<Duration>,
    works: Vec<Duration>,
}

impl Seen {
    fn note(&mut self, record: Record) {
        match record.input {
            Input::Deploy {
                function,
                settings,
                renew,
            } => {
                let kind = self.functions.entry(function).or_default();
                let declared = Some(settings.memory_bytes);
                if renew || kind.declared != declared {
                    (kind.declared, kind.memory_bytes) = (declared, declared);
                }
            }
            Input::Weighed { function, bytes } => {
                self.functions.entry(function).or_default().memory_bytes = Some(bytes);
            }
            Input::Measured { function, start } => {
                let kind = self.functions.entry(function).or_default();
                kind.starts.push(start);
            }
            Input::Arrive {
                function, ticket, ..
            } => {
                self.functions.entry(function.clone()).or_default();
                self.waiting.insert(ticket, self.arrivals.len());
                self.arrivals.push((function, record.at, None));
            }
            Input::Served {
                function,
                instance,
                work,
            } => {
                self.functions.entry(function).or_default().works.push(work);
                let arrival = self.busy.remove(&instance);
                if let Some((.., took)) = arrival.and_then(|index| self.arrivals.get_mut(index)) {
                    *took = Some(work);
                }
            }
            Input::Ended { instance, .. } | Input::Unused { instance, .. } => {
                self.busy.remove(&instance);
            }
            Input::Cancel { ticket, .. } => {
                self.waiting.remove(&ticket);
            }
            // It waits under its ticket still.
            Input::Again { .. }
            // Nothing that a request or a function is like.
            | Input::Remove { .. }
            | Input::Resumed { .. }
            | Input::Found { .. }
            | Input::Started { .. }
            | Input::NotStarted { .. }
            | Input::Scheduled { .. }
            | Input::Budget { .. }
            | Input::Tick => {}
        }
        for action in record.actions {
            match action {
                Action::Serve {
                    ticket, instance, ..
                } => {
                    if let Some(index) = self.waiting.get(&ticket) {
                        self.busy.insert(instance, *index);
                    }
                }
                Action::Refuse { ticket, .. } => {
                    self.waiting.remove(&ticket);
                }
                Action::Start { .. } | Action::Retire { .. } => {}
            }
        }
    }

    /// What was not measured of a request or a start is taken for what is usual for its function.
    fn trace(self, reading: &Reading) -> Trace {
        let mut builder = Builder::new(reading.requests);
        let mut numbers = BTreeMap::new();
        for (name, kind) in self.functions {
            if !reading.takes(name.as_str()) {
                continue;
            }
            let number = builder.function(Function {
                name: name.to_string(),
                app: name.to_string(),
                trigger: None,
                memory_bytes: kind.memory_bytes.unwrap_or(reading.memory_bytes),
                start: median(kind.starts).unwrap_or(reading.start),
            });
            let work = median(kind.works).unwrap_or(reading.work);
            numbers.insert(name, (number, work));
        }
        let begin = self.begin.unwrap_or_default();
        for (function, at, work) in self.arrivals {
            if let Some((number, usual)) = numbers.get(&function) {
                let at = Moment(at.since(begin));
                // There were not more than that while they were read.
                let _ = builder.arrive(*number, at, work.unwrap_or(*usual));
            }
        }
        builder.finish(Moment(self.end.since(begin)))
    }
}

fn median(mut times: Vec<Duration>) -> Option<Duration> {
    times.sort_unstable();
    times.get(times.len() / 2).copied()
}
