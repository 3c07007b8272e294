//! The rule that says when a start has come to its end.

use std::fmt;
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;

use hearth_abi::{FILE_BYTES, Kind};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::Ready;

/// What a rule may be made of, for messages.
const WORDS: &str =
    "`listen`, `accept`, `notify`, `next`, `exit`, `file:/path`, `uprobe:/path:symbol`";

/// One thing that a start is waited for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Condition {
    /// First TCP listen.
    Listen,
    /// First accept or blocking poll.
    Accept,
    /// `sd_notify` says `READY=1`.
    Notify,
    /// The Runtime API is asked for the next invocation.
    Next,
    /// This file is opened for writing, or renamed into place.
    File(PathBuf),
    /// This symbol of this file is reached.
    Uprobe {
        /// Executable or library.
        path: PathBuf,
        /// Its symbol.
        symbol: String,
    },
    /// The program ends.
    Exit,
}

impl Condition {
    /// The mark that fulfils the condition, and how a start that it ends is called.
    #[must_use]
    pub const fn fulfilled_by(&self) -> (Kind, Ready) {
        match self {
            Self::Listen => (Kind::Listen, Ready::Listen),
            Self::Accept => (Kind::Accept, Ready::Accept),
            Self::Notify => (Kind::Notify, Ready::Notify),
            Self::Next => (Kind::Next, Ready::Next),
            Self::File(_) => (Kind::File, Ready::File),
            Self::Uprobe { .. } => (Kind::UserProbe, Ready::Uprobe),
            Self::Exit => (Kind::Exit, Ready::Exit),
        }
    }
}

/// When a start is ready: at the first of its conditions. Written as conditions separated by
/// commas, such as `listen,exit` (the default) or `file:/run/app.ready`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ReadyRule(Vec<Condition>);

/// Why a text is no ready rule.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ReadyRuleError {
    /// Nothing, or nothing between two commas.
    #[error("ready rule {0:?} has an empty condition; write one or more of {WORDS}")]
    Empty(String),
    /// Not a condition.
    #[error(
        "ready condition {0:?} is not known; write one or more of {WORDS}, separated by commas"
    )]
    Unknown(String),
    /// A path that cannot be compared with what the kernel sees.
    #[error("ready condition {0:?} needs an absolute path without `..`")]
    Path(String),
    /// A path too long for the kernel side.
    #[error(
        "ready condition {0:?} has a path of {1} bytes; at most {max} can be watched for",
        max = FILE_BYTES - 1
    )]
    Long(String, usize),
    /// No symbol.
    #[error("ready condition {0:?} names no symbol; write `uprobe:/path:symbol`")]
    Symbol(String),
    /// Twice the same kind of condition.
    #[error("ready rule {0:?} has more than one `{1}` condition; keep one")]
    Twice(String, &'static str),
}

impl ReadyRule {
    /// The first request for work by the Runtime API.
    #[must_use]
    pub fn next() -> Self {
        Self(vec![Condition::Next])
    }

    /// The conditions; never empty.
    #[must_use]
    pub fn conditions(&self) -> &[Condition] {
        &self.0
    }

    /// How a start that ends by a mark of `kind` is called, if the rule takes such a mark.
    #[must_use]
    pub fn ends(&self, kind: Kind) -> Option<Ready> {
        self.0
            .iter()
            .map(Condition::fulfilled_by)
            .find_map(|(by, ready)| (by == kind).then_some(ready))
    }

    /// The bits of [`hearth_abi::ready`]: what the kernel side is to mark for this rule.
    #[must_use]
    pub fn kernel_bits(&self) -> u32 {
        self.0.iter().fold(0, |bits, condition| {
            bits | match condition {
                Condition::Accept => hearth_abi::ready::ACCEPT,
                Condition::Notify => hearth_abi::ready::NOTIFY,
                Condition::Next => hearth_abi::ready::NEXT,
                Condition::File(_) => hearth_abi::ready::FILE,
                Condition::Listen | Condition::Uprobe { .. } | Condition::Exit => 0,
            }
        })
    }

    /// Whether there is a condition beside the program's end.
    #[must_use]
    pub fn waits_for_more_than_exit(&self) -> bool {
        self.0.iter().any(|condition| *condition != Condition::Exit)
    }

    /// The kinds of the hook table that the rule needs beside those of every start: what
    /// follows `ready:` in their names.
    #[must_use]
    pub fn hooks(&self) -> Vec<&'static str> {
        let hook = |condition: &Condition| match condition {
            Condition::Accept => Some("accept"),
            Condition::Notify | Condition::Next => Some("message"),
            Condition::File(_) => Some("file"),
            Condition::Uprobe { .. } => Some("uprobe"),
            Condition::Listen | Condition::Exit => None,
        };
        let mut hooks: Vec<_> = self.0.iter().filter_map(hook).collect();
        hooks.dedup();
        hooks
    }

    /// The file to be watched for.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        self.0.iter().find_map(|condition| match condition {
            Condition::File(path) => Some(path.as_path()),
            _ => None,
        })
    }

    /// The file and its symbol to attach a uprobe to.
    #[must_use]
    pub fn uprobe(&self) -> Option<(&Path, &str)> {
        self.0.iter().find_map(|condition| match condition {
            Condition::Uprobe { path, symbol } => Some((path.as_path(), symbol.as_str())),
            _ => None,
        })
    }
}

impl Default for ReadyRule {
    /// First listen, else exit.
    fn default() -> Self {
        Self(vec![Condition::Listen, Condition::Exit])
    }
}

impl FromStr for ReadyRule {
    type Err = ReadyRuleError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut conditions: Vec<Condition> = Vec::new();
        for word in text.split(',').map(str::trim) {
            if word.is_empty() {
                return Err(ReadyRuleError::Empty(text.to_owned()));
            }
            let condition: Condition = word.parse()?;
            let (kind, ready) = condition.fulfilled_by();
            if conditions
                .iter()
                .any(|other| other.fulfilled_by().0 == kind)
            {
                return Err(ReadyRuleError::Twice(text.to_owned(), ready.as_str()));
            }
            conditions.push(condition);
        }
        Ok(Self(conditions))
    }
}

impl TryFrom<String> for ReadyRule {
    type Error = ReadyRuleError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<ReadyRule> for String {
    fn from(rule: ReadyRule) -> Self {
        rule.to_string()
    }
}

impl FromStr for Condition {
    type Err = ReadyRuleError;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        match word {
            "listen" => return Ok(Self::Listen),
            "accept" => return Ok(Self::Accept),
            "notify" => return Ok(Self::Notify),
            "next" => return Ok(Self::Next),
            "exit" => return Ok(Self::Exit),
            _ => {}
        }
        if let Some(path) = word.strip_prefix("file:") {
            let path = absolute(path, word)?;
            let length = path.as_os_str().len();
            if length >= FILE_BYTES {
                return Err(ReadyRuleError::Long(word.to_owned(), length));
            }
            return Ok(Self::File(path));
        }
        if let Some(target) = word.strip_prefix("uprobe:") {
            return match target.rsplit_once(':') {
                Some((path, symbol)) if !symbol.is_empty() => Ok(Self::Uprobe {
                    path: absolute(path, word)?,
                    symbol: symbol.to_owned(),
                }),
                _ => Err(ReadyRuleError::Symbol(word.to_owned())),
            };
        }
        Err(ReadyRuleError::Unknown(word.to_owned()))
    }
}

fn absolute(path: &str, word: &str) -> Result<PathBuf, ReadyRuleError> {
    let path = PathBuf::from(path);
    let plain = path.is_absolute()
        && path.file_name().is_some()
        && !path
            .components()
            .any(|component| component == Component::ParentDir);
    if plain {
        Ok(path)
    } else {
        Err(ReadyRuleError::Path(word.to_owned()))
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "file:{}", path.display()),
            Self::Uprobe { path, symbol } => write!(f, "uprobe:{}:{symbol}", path.display()),
            plain => f.write_str(plain.fulfilled_by().1.as_str()),
        }
    }
}

impl fmt::Display for ReadyRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, condition) in self.0.iter().enumerate() {
            write!(f, "{}{condition}", if index == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_reads_back_as_written() {
        for text in [
            "listen",
            "exit",
            "accept",
            "notify",
            "next",
            "file:/run/app.ready",
            "uprobe:/usr/bin/app:on_ready",
            "uprobe:/usr/bin/app:main.serve",
            "listen,exit",
            "notify,file:/tmp/x,exit",
        ] {
            let rule: ReadyRule = text.parse().expect(text);
            assert_eq!(rule.to_string(), text);
        }
        assert_eq!(ReadyRule::default().to_string(), "listen,exit");
    }

    #[test]
    fn a_wrong_rule_says_what_is_wrong_and_what_to_write() {
        for (text, needle) in [
            ("", "empty condition"),
            ("listen,,exit", "empty condition"),
            ("lsiten", "is not known; write one or more of `listen`"),
            ("file:run/app", "needs an absolute path"),
            ("file:/run/../etc/passwd", "without `..`"),
            ("uprobe:/usr/bin/app", "names no symbol"),
            ("uprobe:/usr/bin/app:", "names no symbol"),
            ("uprobe:app:main", "needs an absolute path"),
            ("file:/a,file:/b", "more than one `file`"),
            ("exit,exit", "more than one `exit`"),
        ] {
            let error = text.parse::<ReadyRule>().expect_err(text).to_string();
            assert!(error.contains(needle), "{text:?}: {error}");
        }
        let long = format!("file:/{}", "x".repeat(FILE_BYTES));
        let error = long.parse::<ReadyRule>().expect_err("too long").to_string();
        assert!(error.contains("at most 127"), "{error}");
    }

    #[test]
    fn the_kernel_is_asked_only_for_what_it_does_not_mark_anyway() {
        let bits = |text: &str| text.parse::<ReadyRule>().expect(text).kernel_bits();
        assert_eq!(bits("listen,exit"), 0);
        assert_eq!(
            bits("accept,file:/x"),
            hearth_abi::ready::ACCEPT | hearth_abi::ready::FILE
        );
        assert_eq!(
            bits("notify,next"),
            hearth_abi::ready::NOTIFY | hearth_abi::ready::NEXT
        );
    }
}
