//! What policies did, a line each.

use std::fmt::Write as _;

use hearth_runtime::pool::simulate::{Report, Trace};

use super::super::figures::count;
use super::super::terminal::{Terminal, fit, right};
use super::{hours, is_default};

/// A heading and a line a policy.
pub(super) fn table(title: &str, trace: &Trace, reports: &[Report], terminal: &Terminal) -> String {
    let mut text = String::new();
    let functions = count(trace.functions().len() as u64);
    let requests = count(trace.arrivals().len() as u64);
    // Writing to a string cannot fail.
    let _ = writeln!(
        text,
        "{}: {functions} functions, {requests} requests in {}\n",
        terminal.show(title),
        hours(trace.end().0)
    );
    let names = reports.iter().map(|report| name(report).len());
    let width = names.chain([6]).max().unwrap_or(6);
    let above = format!(
        "{}  {}  {}  {}  {}",
        fit("", width),
        right("COLD", 7),
        fit("  BY FUNCTION", 23),
        right("IDLE", 10),
        right("", 8),
    );
    let heading = format!(
        "{}  {}  {}  {}  {}  {}  {}  {}  {}  {}",
        fit("POLICY", width),
        right("STARTS", 7),
        right("P50", 7),
        right("P75", 7),
        right("P99", 7),
        right("GiB h", 8),
        right("WAITED", 8),
        right("REGRET", 8),
        right("QUEUED", 8),
        right("REFUSED", 8),
    );
    let _ = writeln!(text, "{}", terminal.dim(above.trim_end()));
    let _ = writeln!(text, "{}", terminal.dim(&heading));
    for report in reports {
        let line = format!(
            "{}  {}  {}  {}  {}  {}  {}  {}  {}  {}",
            fit(&name(report), width),
            right(&percent(report.cold_start_share), 7),
            right(&percent(report.functions.p50), 7),
            right(&percent(report.functions.p75), 7),
            right(&percent(report.functions.p99), 7),
            right(&format!("{:.1}", report.idle_memory_gib_s / 3600.0), 8),
            right(&percent(report.waited_share), 8),
            right(&percent(report.regret), 8),
            right(&count(report.queued), 8),
            right(&count(report.refused), 8),
        );
        let line = if is_default(report) {
            terminal.bold(&line)
        } else {
            line
        };
        let _ = writeln!(text, "{line}");
    }
    if reports.iter().any(is_default) {
        let _ = writeln!(text, "\n{}", terminal.dim("* the default"));
    }
    text
}

fn name(report: &Report) -> String {
    let mark = if is_default(report) { " *" } else { "" };
    format!("{}{mark}", report.policy)
}

fn percent(share: f64) -> String {
    format!("{:.2} %", share * 100.0)
}
