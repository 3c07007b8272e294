//! Lines of a file with what one must know of each to say what is wrong with it.

use std::io::{self, BufRead, Read as _};
use std::path::{Path, PathBuf};

use super::trace::TooMany;

/// The longest line. One of a day in minutes has about 10 KiB.
const LONGEST: usize = 1 << 20;
/// What of a wrong value is shown.
const SHOWN: usize = 60;

/// Why a file is no trace.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It cannot be read.
    #[error("{}: {error}", file.display())]
    Io {
        /// Which.
        file: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// Something in it is not what it should be.
    #[error("{}, line {line}: {field} is `{value}`, but is to be {remedy}", file.display())]
    Value {
        /// In which file.
        file: PathBuf,
        /// In which line, from 1.
        line: u64,
        /// Which of the line.
        field: String,
        /// What it is.
        value: String,
        /// What it should be.
        remedy: String,
    },
    /// It is larger than what is simulated at once.
    #[error("{}, line {line}: {error}, such as with --share 0.01", file.display())]
    TooMany {
        /// Which.
        file: PathBuf,
        /// Where the last that fits is.
        line: u64,
        /// What there are too many of.
        error: TooMany,
    },
}

/// Reads a file line by line.
#[derive(Debug)]
pub(super) struct Lines<R> {
    file: PathBuf,
    reader: R,
    line: u64,
    text: Vec<u8>,
}

impl<R: BufRead> Lines<R> {
    /// Of a file that is called so.
    pub(super) fn new(file: &Path, reader: R) -> Self {
        Self {
            file: file.to_owned(),
            reader,
            line: 0,
            text: Vec::new(),
        }
    }

    /// The next one, without its end.
    pub(super) fn next(&mut self) -> Result<Option<Line<'_>>, ReadError> {
        self.text.clear();
        let mut bounded = self.reader.by_ref().take(LONGEST as u64 + 1);
        let read = bounded.read_until(b'\n', &mut self.text);
        let read = read.map_err(|error| ReadError::Io {
            file: self.file.clone(),
            error,
        })?;
        if read == 0 {
            return Ok(None);
        }
        self.line += 1;
        while self
            .text
            .last()
            .is_some_and(|byte| matches!(byte, b'\n' | b'\r'))
        {
            self.text.pop();
        }
        let (file, nth) = (&*self.file, self.line);
        let text = std::str::from_utf8(&self.text).unwrap_or_default();
        let whole = Line { file, nth, text };
        if self.text.len() >= LONGEST {
            return Err(whole.wrong("the line", "shorter than a MiB"));
        }
        if text.len() != self.text.len() {
            return Err(whole.wrong("the line", "UTF-8"));
        }
        Ok(Some(whole))
    }
}

/// One line.
#[derive(Clone, Copy, Debug)]
pub(super) struct Line<'a> {
    file: &'a Path,
    nth: u64,
    pub(super) text: &'a str,
}

impl<'a> Line<'a> {
    /// Its number, from 1.
    pub(super) const fn nth(&self) -> u64 {
        self.nth
    }

    /// All of it is not what it should be.
    pub(super) fn wrong(&self, field: &str, remedy: &str) -> ReadError {
        self.wrong_value(field, self.text, remedy)
    }

    /// A value in it is not what it should be.
    pub(super) fn wrong_value(&self, field: &str, value: &str, remedy: &str) -> ReadError {
        ReadError::Value {
            file: self.file.to_owned(),
            line: self.nth,
            field: field.to_owned(),
            value: value.chars().take(SHOWN).collect(),
            remedy: remedy.to_owned(),
        }
    }

    /// It is one too many.
    pub(super) fn too_many(&self, error: TooMany) -> ReadError {
        ReadError::TooMany {
            file: self.file.to_owned(),
            line: self.nth,
            error,
        }
    }

    /// Where the columns of that name are, this being the first line of a table.
    pub(super) fn columns<const N: usize>(
        &self,
        names: [&'static str; N],
    ) -> Result<Columns<N>, ReadError> {
        let mut places = [0; N];
        for (place, name) in places.iter_mut().zip(names) {
            let found = self
                .text
                .split(',')
                .position(|column| column.trim() == name);
            let remedy = || format!("the head of the table, with a column {name}");
            *place = found.ok_or_else(|| self.wrong("the line", &remedy()))?;
        }
        let count = self.text.split(',').count();
        Ok(Columns {
            names,
            places,
            count,
        })
    }

    /// Its values in these columns. Nothing in the tables is quoted.
    pub(super) fn values<const N: usize>(
        &self,
        columns: &Columns<N>,
    ) -> Result<[&'a str; N], ReadError> {
        let mut values = [""; N];
        let mut count = 0;
        for (nth, value) in self.text.split(',').enumerate() {
            count += 1;
            for (place, found) in columns.places.iter().zip(&mut values) {
                if *place == nth {
                    *found = value.trim();
                }
            }
        }
        if count != columns.count {
            let remedy = format!("of {} columns, as the first line is", columns.count);
            return Err(self.wrong("the line", &remedy));
        }
        Ok(values)
    }

    /// A number that is not negative.
    pub(super) fn number(&self, field: &str, value: &str) -> Result<f64, ReadError> {
        let number = value.parse().ok();
        number
            .filter(|number: &f64| (0.0..=1e9).contains(number))
            .ok_or_else(|| self.wrong_value(field, value, "a number from 0 to 1e9"))
    }
}

/// Columns of a table.
#[derive(Debug)]
pub(super) struct Columns<const N: usize> {
    pub(super) names: [&'static str; N],
    places: [usize; N],
    /// Of all.
    count: usize,
}
