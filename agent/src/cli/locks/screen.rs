//! A terminal on which a table is brought up to date in place.

use std::io::{self, IsTerminal as _, Write as _};

/// The terminal's second screen; what was on the first is there again when it is dropped.
#[derive(Debug)]
pub(super) struct Screen(());

const OPEN: &str = "\x1b[?1049h\x1b[?25l";
const CLOSE: &str = "\x1b[?25h\x1b[?1049l";
/// To the upper left corner; and from the cursor to the end of a line, or of all.
const HOME: &str = "\x1b[H";
const CLEAR_LINE: &str = "\x1b[K";
const CLEAR_REST: &str = "\x1b[J";

impl Screen {
    /// Opens it, where standard output is a terminal that can.
    pub(super) fn open() -> Option<Self> {
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        if dumb || !io::stdout().is_terminal() {
            return None;
        }
        write(OPEN).ok()?;
        Some(Self(()))
    }

    /// Shows as much of `text` as there is room for.
    #[expect(
        clippy::unused_self,
        reason = "only one that is open can show something"
    )]
    pub(super) fn show(&mut self, text: &str) -> io::Result<()> {
        let rows = terminal_size::terminal_size_of(io::stdout())
            .map_or(24, |(_, height)| usize::from(height.0));
        write(&frame(text, rows))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // Nobody is left to be told.
        let _ = write(CLOSE);
    }
}

fn write(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}

/// `text` over what was there, in at most `rows` lines: without clearing first, nothing flickers.
fn frame(text: &str, rows: usize) -> String {
    let mut frame = HOME.to_owned();
    let lines: Vec<&str> = text.lines().collect();
    let fits = lines.len() <= rows;
    let shown = if fits {
        lines.len()
    } else {
        rows.saturating_sub(1)
    };
    for (index, line) in lines.iter().take(shown).enumerate() {
        if index > 0 {
            frame.push_str("\r\n");
        }
        frame.push_str(line);
        frame.push_str(CLEAR_LINE);
    }
    if !fits {
        frame.push_str("\r\n(more than this window shows; --once prints all)");
        frame.push_str(CLEAR_LINE);
    }
    frame.push_str(CLEAR_REST);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_fits_the_window() {
        let frame_of = |rows| frame("a\nb\nc\n", rows);
        assert_eq!(frame_of(3), "\x1b[Ha\x1b[K\r\nb\x1b[K\r\nc\x1b[K\x1b[J");
        let cut = frame_of(2);
        assert_eq!(cut.matches("\r\n").count(), 1);
        assert!(
            cut.contains("--once prints all") && !cut.contains("b\x1b"),
            "{cut}"
        );
    }
}
