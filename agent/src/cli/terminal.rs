//! What the output may use (width, characters, colours), and names made safe to print.

use std::ffi::OsString;
use std::io::IsTerminal;

use anstyle::{AnsiColor, Style};
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Width where nothing tells one: a file, a pipe, a log.
const DEFAULT_WIDTH: usize = 100;
/// Below this a picture says nothing; above it bars stop being readable.
const WIDTHS: std::ops::RangeInclusive<usize> = 60..=240;

/// What the output may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terminal {
    /// Columns.
    pub width: usize,
    /// Whether the locale can show more than ASCII.
    pub unicode: bool,
    /// Whether colours are wanted.
    pub colour: bool,
}

impl Terminal {
    /// For text that is kept, or shown by something that is no terminal.
    pub const PLAIN: Self = Self {
        width: DEFAULT_WIDTH,
        unicode: true,
        colour: false,
    };

    /// What standard output may use.
    #[must_use]
    pub fn stdout() -> Self {
        let stdout = std::io::stdout();
        let columns = terminal_size::terminal_size_of(&stdout).map(|(width, _)| width.0.into());
        Self::detect(|name| std::env::var_os(name), stdout.is_terminal(), columns)
    }

    /// Decides from the environment: `COLUMNS` goes before the terminal's own answer,
    /// the first of `LC_ALL`, `LC_CTYPE`, `LANG` names the characters, and colours need a
    /// terminal that is not dumb and an unset `NO_COLOR`.
    fn detect(
        variable: impl Fn(&str) -> Option<OsString>,
        is_terminal: bool,
        columns: Option<usize>,
    ) -> Self {
        let set = |name: &str| {
            variable(name)
                .map(|value| value.to_string_lossy().into_owned())
                .filter(|value| !value.is_empty())
        };
        let width = set("COLUMNS")
            .and_then(|value| value.parse().ok())
            .filter(|columns| *columns > 0)
            .or(columns)
            .unwrap_or(DEFAULT_WIDTH)
            .clamp(*WIDTHS.start(), *WIDTHS.end());
        let locale = set("LC_ALL")
            .or_else(|| set("LC_CTYPE"))
            .or_else(|| set("LANG"));
        let charset = locale.unwrap_or_default().to_ascii_lowercase();
        Self {
            width,
            unicode: charset.contains("utf-8") || charset.contains("utf8"),
            colour: is_terminal
                && set("NO_COLOR").is_none()
                && set("TERM").is_none_or(|term| term != "dumb"),
        }
    }

    /// `text` in `style`, where colours are wanted.
    #[must_use]
    pub fn paint(&self, style: Style, text: &str) -> String {
        if self.colour && !text.is_empty() {
            format!("{style}{text}{style:#}")
        } else {
            text.to_owned()
        }
    }

    /// `text` made less prominent.
    #[must_use]
    pub fn dim(&self, text: &str) -> String {
        self.paint(Style::new().dimmed(), text)
    }

    /// `text` made more prominent.
    #[must_use]
    pub fn bold(&self, text: &str) -> String {
        self.paint(Style::new().bold(), text)
    }

    /// `text` in a colour.
    #[must_use]
    pub fn colour(&self, colour: AnsiColor, text: &str) -> String {
        self.paint(colour.on_default(), text)
    }

    /// `text` as this locale can show it, in lines of at most the width; `mark` stands before the
    /// first, and the others are indented as far.
    #[must_use]
    pub fn wrap(&self, text: &str, mark: &str) -> Vec<String> {
        wrap(&self.show(text), self.width, mark)
    }

    /// `text` as this locale can show it: what is not ASCII is escaped where need be.
    #[must_use]
    pub fn show(&self, text: &str) -> String {
        let safe = printable(text);
        if self.unicode || safe.is_ascii() {
            return safe;
        }
        let mut ascii = String::with_capacity(safe.len());
        for ch in safe.chars() {
            match ch {
                'µ' => ascii.push('u'),
                '…' => ascii.push('~'),
                ch if ch.is_ascii() => ascii.push(ch),
                ch => ascii.extend(ch.escape_unicode()),
            }
        }
        ascii
    }
}

/// A name from outside made safe to print: whoever names a process may put control
/// sequences into it, which a terminal would obey, or marks that turn the text around.
#[must_use]
pub fn printable(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for ch in text.chars() {
        if ch.is_control() || is_invisible(ch) {
            safe.extend(ch.escape_default());
        } else {
            safe.push(ch);
        }
    }
    safe
}

/// Characters without a shape that change what is around them: direction marks,
/// separators of lines, joiners, tags.
const fn is_invisible(ch: char) -> bool {
    matches!(
        ch,
        '\u{ad}'
            | '\u{61c}'
            | '\u{180e}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}'
            | '\u{fffe}'..='\u{ffff}'
            | '\u{e0000}'..='\u{e007f}'
    )
}

/// `text` in lines of at most `width` columns, `mark` before the first and the others indented
/// as far. A number and its unit stay together.
#[must_use]
pub fn wrap(text: &str, width: usize, mark: &str) -> Vec<String> {
    const TIED: char = '\u{a0}';
    let mut after_digit = false;
    let tied: String = text
        .chars()
        .map(|ch| {
            let tie = after_digit && ch == ' ';
            after_digit = ch.is_ascii_digit();
            if tie { TIED } else { ch }
        })
        .collect();
    let indent = " ".repeat(columns(mark));
    let options = textwrap::Options::new(width)
        .initial_indent(mark)
        .subsequent_indent(&indent)
        .word_splitter(textwrap::WordSplitter::NoHyphenation);
    textwrap::wrap(&tied, options)
        .into_iter()
        .map(|line| line.replace(TIED, " "))
        .collect()
}

/// Columns that `text` takes.
#[must_use]
pub fn columns(text: &str) -> usize {
    text.width()
}

/// `text` in exactly `width` columns: filled with blanks, or cut with an ellipsis.
#[must_use]
pub fn fit(text: &str, width: usize) -> String {
    let mut fitted = cut(text, width);
    let used = columns(&fitted);
    fitted.extend(std::iter::repeat_n(' ', width.saturating_sub(used)));
    fitted
}

/// `text` at the right end of `width` columns; longer where it is longer.
#[must_use]
pub fn right(text: &str, width: usize) -> String {
    let blanks = width.saturating_sub(columns(text));
    format!("{}{text}", " ".repeat(blanks))
}

/// `text` in at most `width` columns, with an ellipsis where it was cut.
#[must_use]
pub fn cut(text: &str, width: usize) -> String {
    if columns(text) <= width {
        return text.to_owned();
    }
    let ellipsis = if text.is_ascii() { '~' } else { '…' };
    let mut kept = String::new();
    let mut used = 0;
    for ch in text.chars() {
        let more = ch.width().unwrap_or(0);
        if used + more > width.saturating_sub(1) {
            break;
        }
        used += more;
        kept.push(ch);
    }
    if width > 0 {
        kept.push(ellipsis);
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn detect(variables: &[(&str, &str)], is_terminal: bool, columns: Option<usize>) -> Terminal {
        let find = |name: &str| {
            variables
                .iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| OsString::from(value))
        };
        Terminal::detect(find, is_terminal, columns)
    }

    #[test]
    fn width_comes_from_columns_then_the_terminal_then_the_default() {
        assert_eq!(detect(&[("COLUMNS", "81")], true, Some(200)).width, 81);
        assert_eq!(detect(&[("COLUMNS", "wide")], true, Some(133)).width, 133);
        assert_eq!(detect(&[], false, None).width, 100);
        assert_eq!(detect(&[("COLUMNS", "1")], false, None).width, 60);
        assert_eq!(detect(&[], true, Some(9_999)).width, 240);
    }

    #[test]
    fn the_locale_decides_on_characters() {
        assert!(detect(&[("LANG", "de_DE.UTF-8")], true, None).unicode);
        assert!(detect(&[("LC_CTYPE", "C.utf8"), ("LANG", "C")], true, None).unicode);
        assert!(!detect(&[("LC_ALL", "C"), ("LANG", "C.UTF-8")], true, None).unicode);
        assert!(!detect(&[], true, None).unicode);
    }

    #[test]
    fn colours_need_a_terminal_that_wants_them() {
        assert!(detect(&[], true, None).colour);
        assert!(detect(&[("NO_COLOR", "")], true, None).colour);
        assert!(!detect(&[("NO_COLOR", "1")], true, None).colour);
        assert!(!detect(&[("TERM", "dumb")], true, None).colour);
        assert!(!detect(&[], false, None).colour);
    }

    #[test]
    fn a_name_cannot_command_the_terminal() {
        let hostile = "a\x1b]0;owned\x07\r\nb\u{9b}31m\u{202e}c";
        let safe = printable(hostile);
        assert!(
            safe.chars().all(|ch| !ch.is_control() && ch != '\u{202e}'),
            "{safe}"
        );
        assert_eq!(safe, "a\\u{1b}]0;owned\\u{7}\\r\\nb\\u{9b}31m\\u{202e}c");
        assert_eq!(printable("größe 漢字"), "größe 漢字");
    }

    #[test]
    fn a_number_keeps_its_unit() {
        let lines = wrap("It took 48.2 ms in all, hand-over included.", 14, "- ");
        assert_eq!(
            lines,
            [
                "- It took",
                "  48.2 ms in",
                "  all,",
                "  hand-over",
                "  included."
            ]
        );
    }

    #[test]
    fn cut_counts_columns_and_not_characters() {
        assert_eq!(cut("漢字漢字", 8), "漢字漢字");
        assert_eq!(cut("漢字漢字", 6), "漢字…");
        assert_eq!(columns(&fit("漢字漢字", 6)), 6);
        assert_eq!(fit("abc", 5), "abc  ");
        assert_eq!(cut("abcdef", 4), "abc~");
        assert_eq!(cut("abcdef", 0), "");
    }
}
