//! What is wrong with what was asked for, and what to do about it.

use std::fmt;
use std::time::Duration;

/// Which kind of problem; its word is part of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A definition, parameter or header is wrong.
    Invalid,
    /// A layer was refused, or cannot be read.
    Layer,
    /// No function of this name.
    UnknownFunction,
    /// No invocation of this id, or its outcome is forgotten.
    UnknownInvocation,
    /// It was started by no request of this id, or nobody saw how.
    UnknownStart,
    /// No such path.
    UnknownPath,
    /// Another method.
    Method,
    /// The payload is larger than it may be.
    TooLarge,
    /// All instances are at work, and enough requests wait for one.
    Busy,
    /// There is no memory for another instance.
    NoMemory,
    /// The function keeps failing, and is left alone for a while.
    BackOff,
    /// An invocation with this id is under way, or was.
    Repeated,
    /// No spawner listens, so that no sandbox can be had.
    NoSpawner,
    /// A sandbox could not be had.
    NoSandbox,
    /// The sandbox was lost with the request.
    Lost,
    /// The store cannot be read or written.
    Store,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 16] = [
        Self::Invalid,
        Self::Layer,
        Self::UnknownFunction,
        Self::UnknownInvocation,
        Self::UnknownStart,
        Self::UnknownPath,
        Self::Method,
        Self::TooLarge,
        Self::Busy,
        Self::NoMemory,
        Self::BackOff,
        Self::Repeated,
        Self::NoSpawner,
        Self::NoSandbox,
        Self::Lost,
        Self::Store,
    ];

    /// The word that names it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Invalid => "invalid",
            Self::Layer => "layer-refused",
            Self::UnknownFunction => "unknown-function",
            Self::UnknownInvocation => "unknown-invocation",
            Self::UnknownStart => "unknown-cold-start",
            Self::UnknownPath => "unknown-path",
            Self::Method => "method-not-allowed",
            Self::TooLarge => "payload-too-large",
            Self::Busy => "too-busy",
            Self::NoMemory => "no-memory",
            Self::BackOff => "back-off",
            Self::Repeated => "request-repeated",
            Self::NoSpawner => "no-spawner",
            Self::NoSandbox => "no-sandbox",
            Self::Lost => "sandbox-lost",
            Self::Store => "store-failed",
        }
    }

    /// It in a few words.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::Invalid => "a value is wrong",
            Self::Layer => "a layer is refused",
            Self::UnknownFunction => "there is no such function",
            Self::UnknownInvocation => "there is no such invocation",
            Self::UnknownStart => "no cold start was seen",
            Self::UnknownPath => "there is no such path",
            Self::Method => "the path does not take this method",
            Self::TooLarge => "the payload is too large",
            Self::Busy => "all instances are at work",
            Self::NoMemory => "there is no memory for another sandbox",
            Self::BackOff => "the function keeps failing",
            Self::Repeated => "the request id is in use",
            Self::NoSpawner => "no spawner listens",
            Self::NoSandbox => "no sandbox could be had",
            Self::Lost => "the sandbox was lost",
            Self::Store => "the store of functions failed",
        }
    }

    /// The status of HTTP.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::Invalid | Self::Layer => 400,
            Self::UnknownFunction
            | Self::UnknownInvocation
            | Self::UnknownStart
            | Self::UnknownPath => 404,
            Self::Method => 405,
            Self::Repeated => 409,
            Self::TooLarge => 413,
            Self::Busy => 429,
            Self::Store => 500,
            Self::Lost => 502,
            Self::NoMemory | Self::BackOff | Self::NoSpawner | Self::NoSandbox => 503,
        }
    }
}

/// One problem.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Problem {
    /// Which kind.
    pub kind: Kind,
    /// What is wrong.
    pub detail: String,
    /// With which field.
    pub field: Option<String>,
    /// Which had this value.
    pub value: Option<String>,
    /// What to do.
    pub remedy: String,
    /// After how many seconds another attempt may do better, where that can be said.
    pub retry_after: Option<u64>,
}

impl Problem {
    /// One that no field is to blame for.
    #[must_use]
    pub fn new(kind: Kind, detail: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            kind,
            detail: detail.into(),
            field: None,
            value: None,
            remedy: remedy.into(),
            retry_after: None,
        }
    }

    /// A field has a value that it cannot have.
    #[must_use]
    pub fn field(
        field: impl Into<String>,
        value: impl fmt::Display,
        detail: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self::new(Kind::Invalid, detail, remedy).about(field, value)
    }

    /// With the field that is to blame, and its value, shortened.
    #[must_use]
    pub fn about(mut self, field: impl Into<String>, value: impl fmt::Display) -> Self {
        self.field = Some(field.into());
        self.value = Some(value.to_string().chars().take(200).collect());
        self
    }

    /// With the time after which another attempt may do better.
    #[must_use]
    pub fn after(mut self, time: Duration) -> Self {
        let part = u64::from(time.subsec_nanos() > 0);
        self.retry_after = Some(time.as_secs().saturating_add(part));
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.field, &self.value) {
            (Some(field), Some(value)) => write!(f, "{field} = {value:?}: ")?,
            (Some(field), None) => write!(f, "{field}: ")?,
            (None, _) => {}
        }
        f.write_str(&self.detail)?;
        if !self.remedy.is_empty() {
            write!(f, "; {}", self.remedy)?;
        }
        match self.retry_after {
            Some(seconds) => write!(f, " (after {seconds} s)"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_a_word_of_its_own_and_a_status_of_an_error() {
        let words = Kind::ALL.map(Kind::word);
        for (index, kind) in Kind::ALL.into_iter().enumerate() {
            assert!(!words[..index].contains(&kind.word()));
            assert!((400..600).contains(&kind.status()));
        }
    }
}
