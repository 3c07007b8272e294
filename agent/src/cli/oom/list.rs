//! The captures, one a line.

use std::fmt::Write as _;

use serde::Serialize;

use crate::cli::terminal::{Terminal, fit, right};
use crate::observe::oom::CaptureId;
use crate::observe::oom::model::{Capture, Constraint};
use crate::observe::oom::sentence::size;
use crate::observe::oom::store::{Captures, StoreError};

/// One capture in short; what is not known is null.
#[derive(Debug, Serialize)]
pub(super) struct Summary<'a> {
    pub(super) id: &'a CaptureId,
    pub(super) killed_unix_ns: Option<u64>,
    pub(super) pid: Option<u32>,
    pub(super) name: Option<&'a str>,
    pub(super) constraint: Option<&'static str>,
    pub(super) cgroup: Option<&'a str>,
    pub(super) usage_bytes: Option<u64>,
    pub(super) limit_bytes: Option<u64>,
    pub(super) threads: Option<u32>,
    pub(super) completeness: Option<&'static str>,
    pub(super) trace_id: Option<&'a str>,
    /// Why the file cannot be read.
    pub(super) error: Option<String>,
}

impl<'a> Summary<'a> {
    pub(super) fn of(capture: &'a Capture) -> Self {
        Self {
            id: &capture.id,
            killed_unix_ns: Some(capture.killed_unix_ns),
            pid: Some(capture.victim.pid),
            name: Some(&capture.victim.comm),
            constraint: Some(capture.kill.constraint.name()),
            cgroup: capture.cgroup.path.value().map(String::as_str),
            usage_bytes: capture.kill.usage_bytes.value().copied(),
            limit_bytes: capture.kill.limit_bytes.value().copied(),
            threads: Some(capture.victim.threads),
            completeness: Some(capture.completeness.name()),
            trace_id: capture.trace.value().map(|trace| &*trace.trace_id),
            error: None,
        }
    }

    fn unreadable(id: &'a CaptureId, error: &StoreError) -> Self {
        Self {
            id,
            killed_unix_ns: None,
            pid: None,
            name: None,
            constraint: None,
            cgroup: None,
            usage_bytes: None,
            limit_bytes: None,
            threads: None,
            completeness: None,
            trace_id: None,
            error: Some(error.to_string()),
        }
    }

    /// A line of the table.
    pub(super) fn line(&self, terminal: &Terminal) -> String {
        let id = fit(self.id.as_str(), 28);
        if let Some(error) = &self.error {
            return format!("{id}  {}", terminal.show(error));
        }
        format!(
            "{id}  {}  {}  {}  {}  {}",
            fit(&terminal.show(self.name.unwrap_or("?")), 15),
            fit(self.constraint.unwrap_or("?"), 10),
            self.used(),
            fit(self.completeness.unwrap_or("?"), 12),
            terminal.show(self.cgroup.unwrap_or("?")),
        )
        .trim_end()
        .to_owned()
    }

    /// How much of how much was used; where it was no cgroup's limit, of what.
    fn used(&self) -> String {
        let node = Constraint::Global.name();
        if self.constraint == Some(node) && self.limit_bytes.is_none() {
            return right("the node's memory", 24);
        }
        let bytes = |bytes: Option<u64>| bytes.map_or_else(|| "?".to_owned(), size);
        let (usage, limit) = (bytes(self.usage_bytes), bytes(self.limit_bytes));
        format!("{} of {}", right(&usage, 10), fit(&limit, 10))
    }
}

/// The newest `last` captures.
pub(super) fn list(
    captures: &Captures,
    last: usize,
    json: bool,
    terminal: &Terminal,
) -> anyhow::Result<String> {
    let ids = captures.ids()?;
    let mut text = String::new();
    if !json && ids.is_empty() {
        return Ok("no captures: nothing was killed for want of memory\n".to_owned());
    }
    if !json {
        let heading = format!(
            "{}  {}  {}  {} {}  {}  CGROUP",
            fit("ID", 28),
            fit("KILLED", 15),
            fit("RAN OUT", 10),
            right("USED", 10),
            fit("OF", 13),
            fit("CAPTURE", 12),
        );
        writeln!(text, "{}", terminal.dim(&heading))?;
    }
    for id in ids.iter().take(last) {
        let read = captures.read(id);
        let summary = match &read {
            Ok(capture) => Summary::of(capture),
            // Removed to make room meanwhile.
            Err(StoreError::None { .. }) => continue,
            Err(error) => Summary::unreadable(id, error),
        };
        if json {
            writeln!(text, "{}", serde_json::to_string(&summary)?)?;
        } else {
            writeln!(text, "{}", summary.line(terminal))?;
        }
    }
    if !json && ids.len() > last {
        let more = ids.len() - last;
        writeln!(
            text,
            "{}",
            terminal.dim(&format!("and {more} older: --last {}", ids.len()))
        )?;
    }
    Ok(text)
}
