//! The bytes of a file: lines, each of which follows from the one before.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest as _, Sha256};

use super::entry::{Entry, Line};

/// What every line begins with; its link and the rest of its text follow.
const HEAD: &str = "{\"chain\":\"";
/// Between the two.
const BETWEEN: &str = "\",";
/// Digits of a link.
const DIGITS: usize = 64;

/// The chain up to some line.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Link([u8; 32]);

impl Link {
    /// The chain with one more line.
    #[must_use]
    fn then(self, json: &[u8]) -> Self {
        let sum = Sha256::new().chain_update(self.0).chain_update(json);
        Self(sum.finalize().into())
    }
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Link({self})")
    }
}

/// It is not 64 lowercase hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not 64 lowercase hexadecimal digits")]
pub struct NotALink;

impl FromStr for Link {
    type Err = NotALink;

    fn from_str(text: &str) -> Result<Self, NotALink> {
        let digits = text.as_bytes();
        let digit = |byte: u8| match byte {
            b'0'..=b'9' => Ok(byte - b'0'),
            b'a'..=b'f' => Ok(byte - b'a' + 10),
            _ => Err(NotALink),
        };
        if digits.len() != DIGITS {
            return Err(NotALink);
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Ok(Self(bytes))
    }
}

/// Appends `line` to `out`; the chain with it.
pub(super) fn write(
    line: &Line,
    before: Link,
    out: &mut Vec<u8>,
) -> Result<Link, serde_json::Error> {
    let json = serde_json::to_string(line)?;
    let sum = before.then(json.as_bytes());
    // The object's own brace is part of the head.
    let rest = json.get(1..).unwrap_or_default();
    out.extend_from_slice(format!("{HEAD}{sum}{BETWEEN}{rest}\n").as_bytes());
    Ok(sum)
}

/// What a file says, as far as its chain holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Read {
    /// Its lines up to the first that does not follow from the one before.
    pub lines: Lines,
    /// Bytes of these.
    pub bytes: usize,
    /// The chain up to the last of them; none where there is none.
    pub last: Option<Link>,
    /// Where it does not go on.
    pub broken: Option<Break>,
}

/// Lines with the chain up to them.
pub type Lines = Vec<(Line, Link)>;

/// The first line that does not follow from the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Break {
    /// Which line of the file, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub why: Why,
}

/// What is wrong with a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It is the last, and has no end: whoever wrote it was ended, or somebody cut the file.
    Torn,
    /// It does not have the link that follows from the line before and its own text: one of them
    /// was changed, or a line between them was taken out or put in.
    Link,
    /// It follows, and says nothing that is known.
    Text,
    /// The file does not begin with what stood before, or not where the file before it ended.
    Begin,
}

impl fmt::Display for Break {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let why = match self.why {
            Why::Torn => "is torn: it has no end",
            Why::Link => {
                "does not follow from the line before: one of them was changed, or a line between \
                 them was taken out or put in"
            }
            Why::Text => "says nothing that this version of hearth knows",
            Why::Begin => "does not follow from the end of the file before",
        };
        write!(f, "line {} {why}", self.line)
    }
}

/// Reads a file, whatever its bytes are; `before` is the chain up to it, where that is known.
#[must_use]
pub fn read(bytes: &[u8], before: Option<Link>) -> Read {
    let mut read = Read {
        last: None,
        ..Read::default()
    };
    let mut rest = bytes;
    while !rest.is_empty() {
        let number = read.lines.len() + 1;
        let stop = |why| Some(Break { line: number, why });
        let Some(end) = rest.iter().position(|byte| *byte == b'\n') else {
            read.broken = stop(Why::Torn);
            break;
        };
        let (text, later) = rest.split_at(end);
        let line = match read.last {
            Some(last) => follows(text, last),
            None => first(text, before),
        };
        match line {
            Ok((line, sum)) => {
                read.lines.push((line, sum));
                read.last = Some(sum);
            }
            Err(why) => {
                read.broken = stop(why);
                break;
            }
        }
        rest = later.get(1..).unwrap_or_default();
        read.bytes += end + 1;
    }
    read
}

/// A line that follows from the one before.
fn follows(text: &[u8], before: Link) -> Result<(Line, Link), Why> {
    let (sum, json) = parts(text).ok_or(Why::Link)?;
    if before.then(&json) != sum {
        return Err(Why::Link);
    }
    let line = serde_json::from_slice(&json).map_err(|_| Why::Text)?;
    Ok((line, sum))
}

/// The first of a file says from what it follows.
fn first(text: &[u8], before: Option<Link>) -> Result<(Line, Link), Why> {
    let (_, json) = parts(text).ok_or(Why::Link)?;
    let line: Line = serde_json::from_slice(&json).map_err(|_| Why::Text)?;
    let Entry::Begin(begin) = &line.entry else {
        return Err(Why::Begin);
    };
    let after: Link = begin.after.parse().map_err(|_| Why::Begin)?;
    if before.is_some_and(|before| before != after) {
        return Err(Why::Begin);
    }
    follows(text, after)
}

/// The link that a line has, and the text that it was made of.
fn parts(text: &[u8]) -> Option<(Link, Vec<u8>)> {
    let (sum, rest) = text
        .strip_prefix(HEAD.as_bytes())?
        .split_at_checked(DIGITS)?;
    let sum = std::str::from_utf8(sum).ok()?.parse().ok()?;
    let rest = rest.strip_prefix(BETWEEN.as_bytes())?;
    Some((sum, [b"{", rest].concat()))
}

#[cfg(test)]
mod tests {
    use super::super::entry::Begin;
    use super::*;
    use crate::time::Boottime;

    fn line(seq: u64, before: Link) -> Line {
        let entry = if seq == 1 {
            Entry::Begin(Begin {
                after: before.to_string(),
                ..Begin::default()
            })
        } else {
            Entry::Removed {
                function: "shop".parse().expect("a name"),
            }
        };
        Line {
            seq,
            unix_ms: 1,
            at: Boottime(seq),
            entry,
        }
    }

    fn file(lines: u64) -> Vec<u8> {
        let (mut out, mut sum) = (Vec::new(), Link::default());
        for seq in 1..=lines {
            sum = write(&line(seq, sum), sum, &mut out).expect("JSON");
        }
        out
    }

    #[test]
    fn what_is_written_is_read_and_each_line_is_one_object() {
        let bytes = file(4);
        let read = read(&bytes, Some(Link::default()));
        assert_eq!((read.lines.len(), read.bytes), (4, bytes.len()));
        assert_eq!(read.broken, None);
        let text = String::from_utf8(bytes).expect("text");
        for (number, text) in text.lines().enumerate() {
            let json: serde_json::Value = serde_json::from_str(text).expect("an object");
            assert_eq!(json["seq"], number + 1);
            assert_eq!(json["chain"].as_str().map(str::len), Some(DIGITS));
        }
    }

    /// The oracle: every single change is found, at the line that it is in or at the next one.
    #[test]
    fn every_changed_byte_every_missing_and_every_moved_line_shows() {
        let bytes = file(4);
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 4;
            let read = read(&changed, Some(Link::default()));
            assert!(read.broken.is_some(), "byte {at}");
        }
        let lines: Vec<&[u8]> = bytes.split_inclusive(|byte| *byte == b'\n').collect();
        for out in 0..3 {
            let mut fewer = lines.clone();
            fewer.remove(out);
            assert!(read(&fewer.concat(), None).broken.is_some(), "line {out}");
            let mut moved = lines.clone();
            moved.swap(out, out + 1);
            assert!(read(&moved.concat(), None).broken.is_some(), "line {out}");
        }
        let elsewhere = Link([1; 32]);
        let broken = read(&bytes, Some(elsewhere)).broken;
        assert_eq!(
            broken,
            Some(Break {
                line: 1,
                why: Why::Begin
            })
        );
    }

    #[test]
    fn a_torn_end_costs_what_is_torn_and_nothing_else() {
        let bytes = file(3);
        let last = bytes.len() - 1;
        let whole = bytes[..last].iter().rposition(|byte| *byte == b'\n');
        let whole = whole.expect("a line before") + 1;
        for cut in whole + 1..=last {
            let read = read(&bytes[..cut], None);
            assert_eq!((read.lines.len(), read.bytes), (2, whole));
            assert_eq!(
                read.broken,
                Some(Break {
                    line: 3,
                    why: Why::Torn
                })
            );
        }
        assert_eq!(read(&bytes[..whole], None).broken, None);
    }
}
