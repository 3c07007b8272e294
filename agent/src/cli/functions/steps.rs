//! What took how long on the way of a request, as a small waterfall.

use std::fmt::Write as _;

use serde::Serialize;

use super::invoke::Told;
use crate::cli::figures::duration;
use crate::cli::terminal::{Terminal, columns, fit, right};
use crate::time::Nanos;

/// Columns of one length.
const FIGURE: usize = 7;

/// One step, in nanoseconds after the request came in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Step {
    pub(super) name: String,
    pub(super) begin_ns: u64,
    pub(super) length_ns: u64,
}

/// The steps that a `Server-Timing` header tells.
pub(super) fn steps_of(header: &str) -> Vec<Step> {
    let step = |text: &str| {
        let mut parts = text.trim().split(';');
        let name = parts.next().filter(|name| !name.is_empty())?;
        let mut step = Step {
            name: name.to_owned(),
            begin_ns: 0,
            length_ns: 0,
        };
        for part in parts {
            match part.split_once('=')? {
                ("start", millis) => step.begin_ns = nanos(millis)?,
                ("dur", millis) => step.length_ns = nanos(millis)?,
                _ => {}
            }
        }
        Some(step)
    };
    header.split(',').filter_map(step).collect()
}

/// Milliseconds with at most six decimals.
fn nanos(millis: &str) -> Option<u64> {
    let (whole, part) = millis.split_once('.').unwrap_or((millis, ""));
    let part = format!("{part:0<6}");
    let part: u64 = part.get(..6)?.parse().ok()?;
    whole
        .parse::<u64>()
        .ok()?
        .checked_mul(1_000_000)?
        .checked_add(part)
}

/// A row a step on a common axis; every line ends with a newline.
pub(super) fn waterfall(told: &Told, terminal: &Terminal) -> String {
    let end = |step: &Step| step.begin_ns.saturating_add(step.length_ns);
    let total = told.steps.iter().map(end).max().unwrap_or(0);
    let names = told.steps.iter().map(|step| columns(&step.name));
    let label = names.chain([columns("total")]).max().unwrap_or(0).min(24);
    let cells = terminal
        .width
        .saturating_sub(label + 2 * (FIGURE + 2) + 2)
        .max(1);
    let filled = if terminal.unicode { "█" } else { "#" };
    let mut text = String::new();
    let sandbox = told.sandbox.as_deref().unwrap_or("no sandbox");
    let origin = told.origin.as_deref().unwrap_or("?");
    let version = told
        .version
        .map_or_else(String::new, |version| format!(" version {version}"));
    // Writing to a string cannot fail.
    let _ = writeln!(
        text,
        "{}",
        terminal.bold(&format!(
            "{}{version} in {sandbox} ({origin})",
            told.function
        ))
    );
    for step in &told.steps {
        let cell = |at: u64| {
            let cells = u128::try_from(cells).unwrap_or(0);
            usize::try_from(u128::from(at) * cells / u128::from(total.max(1))).unwrap_or(0)
        };
        let from = cell(step.begin_ns).min(cells.saturating_sub(1));
        let to = cell(end(step)).clamp(from + 1, cells.max(from + 1));
        let figure = |ns: u64| right(&terminal.show(&duration(Nanos(ns))), FIGURE);
        let row = format!(
            "{}  {}  {}  {}{}",
            fit(&terminal.show(&step.name), label),
            terminal.dim(&figure(step.begin_ns)),
            figure(step.length_ns),
            " ".repeat(from),
            filled.repeat(to - from),
        );
        let _ = writeln!(text, "{}", row.trim_end());
    }
    let whole = right(&terminal.show(&duration(Nanos(total))), FIGURE);
    let _ = writeln!(text, "{}  {:FIGURE$}  {whole}", fit("total", label), "");
    text
}
