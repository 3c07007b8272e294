//! Tells the story of `hearth run` with functions on a terminal: `cargo xtask demo`.

use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use anstyle::{AnsiColor, Style};
use hearth_tests::demo::{self, Narrator, Stop};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

/// Plain text, with colours where somebody looks.
struct Terminal {
    began: Instant,
    acts: u32,
    colours: bool,
}

impl Terminal {
    /// Whoever reads is gone: the story goes on for its end.
    fn line(&self, style: Style, text: &str) {
        let mut out = io::stdout().lock();
        let _ = if self.colours {
            writeln!(out, "{style}{text}{style:#}")
        } else {
            writeln!(out, "{text}")
        };
    }
}

impl Narrator for Terminal {
    fn act(&mut self, title: &str) {
        self.acts += 1;
        let seconds = self.began.elapsed().as_secs();
        let text = format!("\n{}. {title}  [{seconds} s]", self.acts);
        self.line(AnsiColor::Cyan.on_default().bold(), &text);
    }

    fn does(&mut self, text: &str) {
        self.line(Style::new().bold(), &format!("  > {text}"));
    }

    fn sees(&mut self, text: &str) {
        self.line(Style::new(), &format!("    {text}"));
    }
}

fn main() -> ExitCode {
    let stop = Stop::default();
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        if let Err(error) = signal_hook::flag::register(signal, Arc::clone(&stop)) {
            eprintln!("hearth-demo: signal {signal} would leave sandboxes behind: {error}");
            return ExitCode::FAILURE;
        }
    }
    let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let mut terminal = Terminal {
        began: Instant::now(),
        acts: 0,
        colours: io::stdout().is_terminal() && !no_colour,
    };
    match demo::tell(&mut terminal, &stop) {
        Ok(()) => {
            let seconds = terminal.began.elapsed().as_secs();
            let style = AnsiColor::Green.on_default().bold();
            terminal.line(
                style,
                &format!("\nAll of it was as it should be, in {seconds} s."),
            );
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("\nhearth-demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}
