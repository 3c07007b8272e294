//! What is wrong with a configuration, where, and what to do about it.

use std::fmt;
use std::path::PathBuf;

use thiserror::Error;

/// A configuration that hearth refuses.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file is not there or cannot be read.
    #[error("cannot read the configuration {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is a folder, a device, a socket.
    #[error("{} is no file; name the configuration itself", .0.display())]
    NoFile(PathBuf),
    /// Others can write the file.
    #[error(
        "{} can be written by others than its owner (mode {mode:04o}), who could make hearth \
         read and send what they like; take that away: chmod go-w {}", path.display(), path.display()
    )]
    Writable {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Somebody else owns the file.
    #[error(
        "{} belongs to user {owner}, who is neither root nor the user that runs hearth; \
         give it to root: chown root {}", path.display(), path.display()
    )]
    Owner {
        /// The file.
        path: PathBuf,
        /// Its owner.
        owner: u32,
    },
    /// A key or a value is wrong.
    #[error("{0}")]
    Invalid(Box<Fault>),
    /// An `OTEL_*` variable is wrong.
    #[error("the environment variable {variable} has the value {value:?}: {remedy}")]
    Environment {
        /// Name of the variable.
        variable: &'static str,
        /// Its value.
        value: String,
        /// What to write instead.
        remedy: String,
    },
}

/// One wrong key or value, by place.
#[derive(Debug, PartialEq, Eq)]
pub struct Fault {
    /// The file.
    pub path: PathBuf,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// Dotted path of the key, empty where there is none yet (syntax).
    pub key: String,
    /// The line itself.
    pub source: String,
    /// Characters to underline.
    pub width: usize,
    /// What is wrong and what to do.
    pub message: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: ", self.path.display(), self.line, self.column)?;
        if !self.key.is_empty() {
            write!(f, "`{}`: ", self.key)?;
        }
        let gutter = self.line.to_string().len();
        write!(
            f,
            "{}\n{:gutter$} |\n{} | {}\n{:gutter$} | {:indent$}{}",
            self.message,
            "",
            self.line,
            self.source,
            "",
            "",
            "^".repeat(self.width),
            indent = self.column - 1,
        )
    }
}

impl Fault {
    /// The fault at `key` that reading `text` (the content of `path`) ended with.
    pub(super) fn new(path: PathBuf, text: &str, key: String, error: &toml::de::Error) -> Self {
        let span = error.span().unwrap_or(0..0);
        let start = span.start.min(text.len());
        let before = &text[..start];
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let source = text[line_start..]
            .lines()
            .next()
            .unwrap_or_default()
            .to_owned();
        let column = text[line_start..start].chars().count() + 1;
        let marked = text
            .get(span)
            .unwrap_or_default()
            .lines()
            .next()
            .unwrap_or_default();
        let room = source.chars().count().saturating_sub(column - 1);
        Self {
            path,
            line: before.matches('\n').count() + 1,
            column,
            key: if key == "." { String::new() } else { key },
            width: marked.chars().count().clamp(1, room.max(1)),
            source,
            message: with_hint(error.message()),
        }
    }
}

/// Adds the near key or word to a message of serde about one that it does not know.
fn with_hint(message: &str) -> String {
    let names = message.split('`').skip(1).step_by(2).collect::<Vec<_>>();
    let unknown = message.starts_with("unknown field") || message.starts_with("unknown variant");
    match names.split_first() {
        Some((wrong, known)) if unknown => match nearest(wrong, known) {
            Some(near) => format!("{message}; did you mean `{near}`?"),
            None => message.to_owned(),
        },
        _ => message.to_owned(),
    }
}

/// The one of `known` that `wrong` is most likely to mean, if any is near.
fn nearest<'a>(wrong: &str, known: &[&'a str]) -> Option<&'a str> {
    let wrong = wrong.to_lowercase();
    known
        .iter()
        .map(|word| (strsim::jaro_winkler(&wrong, &word.to_lowercase()), *word))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, word)| word)
}
