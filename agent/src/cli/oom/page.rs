//! What a report is written on.

use crate::cli::terminal::{Terminal, fit, wrap};

/// Columns of the headings.
pub(super) const HEADING: usize = 9;

/// Text under headings in the margin.
pub(super) struct Page<'a> {
    pub(super) text: String,
    pub(super) terminal: &'a Terminal,
}

impl Page<'_> {
    pub(super) fn line(&mut self, line: &str) {
        self.text.push_str(line.trim_end());
        self.text.push('\n');
    }

    /// Lines under a heading, wrapped.
    pub(super) fn under(&mut self, heading: &str, lines: &[String]) {
        let room = self.terminal.width.saturating_sub(HEADING).max(40);
        let mut heading = heading;
        for line in lines {
            let line = self.terminal.show(line);
            for line in wrap(&line, room, "") {
                let margin = self.terminal.bold(&fit(heading, HEADING));
                self.line(&format!("{margin}{line}"));
                heading = "";
            }
        }
    }
}
