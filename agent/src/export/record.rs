//! What is told of one start, in a form that can wait on disk.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

/// Event name of a long wait's log record.
pub(super) const EVENT_LOCK_WAIT: &str = "hearth.cgroup_lock.wait";
/// Event name of a start's log record.
pub(super) const EVENT_COLD_START: &str = "hearth.cold_start";

/// Event name of a healing's log record.
pub(super) const EVENT_HEAL: &str = "hearth.heal";
/// Event name of a kill's log record.
pub(super) const EVENT_OOM: &str = "hearth.oom";

/// A trace and its log record; or a log record alone, in another record's trace or in none.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Trace of the start.
    pub trace_id: u128,
    /// The start, its phases and their parts; the first is the root.
    pub spans: Vec<Span>,
    /// That it ended.
    pub log: Log,
}

/// One span.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Span {
    /// Its id, unique in the trace.
    pub id: u64,
    /// Span that it is inside of; 0 when none.
    pub parent: u64,
    /// What it is.
    pub name: String,
    /// From, nanoseconds since 1970.
    pub begin_unix_ns: u64,
    /// To.
    pub end_unix_ns: u64,
    /// What is known of it.
    pub attributes: Vec<Attribute>,
    /// Why it failed, where it did.
    pub error: Option<String>,
    /// Spans of other traces that it has to do with.
    #[serde(default)]
    pub links: Vec<SpanLink>,
}

/// A span of another trace.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SpanLink {
    /// Its trace.
    pub trace_id: u128,
    /// Its id.
    pub span_id: u64,
    /// What it has to do with it.
    pub attributes: Vec<Attribute>,
}

/// One log record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Log {
    /// What kind of event it tells of.
    pub event: Cow<'static, str>,
    /// When, nanoseconds since 1970.
    pub unix_ns: u64,
    /// Whether somebody should look at it.
    pub warning: bool,
    /// A sentence.
    pub body: String,
    /// The span it belongs to.
    pub span: u64,
    /// What is known of it.
    pub attributes: Vec<Attribute>,
}

/// A name and its value.
pub(super) type Attribute = (Cow<'static, str>, Value);

/// Value of an attribute.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Value {
    /// Yes or no.
    Bool(bool),
    /// A count.
    I64(i64),
    /// A measure.
    F64(f64),
    /// A word.
    Text(String),
    /// Words.
    List(Vec<String>),
}

impl Record {
    /// Bytes that the record takes in memory, roughly.
    #[must_use]
    pub fn weight(&self) -> u64 {
        let spans = self.spans.iter().map(|span| {
            let links = span.links.iter().map(|link| {
                size_of::<SpanLink>() + link.attributes.iter().map(weight).sum::<usize>()
            });
            span.name.len()
                + size_of::<Span>()
                + span.attributes.iter().map(weight).sum::<usize>()
                + links.sum::<usize>()
        });
        let log = self.log.body.len() + self.log.attributes.iter().map(weight).sum::<usize>();
        (size_of::<Self>() + log + spans.sum::<usize>()) as u64
    }
}

fn weight((_, value): &Attribute) -> usize {
    size_of::<Attribute>()
        + match value {
            Value::Text(text) => text.len(),
            Value::List(list) => list
                .iter()
                .map(|text| size_of::<String>() + text.len())
                .sum(),
            Value::Bool(_) | Value::I64(_) | Value::F64(_) => 0,
        }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<u64> for Value {
    fn from(value: u64) -> Self {
        Self::I64(i64::try_from(value).unwrap_or(i64::MAX))
    }
}

impl From<i32> for Value {
    fn from(value: i32) -> Self {
        Self::I64(value.into())
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Self {
        Self::F64(value)
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Self::Text(value.to_owned())
    }
}

impl From<String> for Value {
    fn from(value: String) -> Self {
        Self::Text(value)
    }
}

impl From<Vec<String>> for Value {
    fn from(value: Vec<String>) -> Self {
        Self::List(value)
    }
}
