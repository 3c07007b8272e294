//! A capture as a report that one can act on.

use std::fmt::Write as _;
use std::time::{Duration, UNIX_EPOCH};

use anstyle::AnsiColor;

use super::page::Page;
use super::threads::{kernel_frames, threads};
use super::view::View;
use crate::cli::terminal::{Terminal, fit};
use crate::observe::oom::limit::Limit;
use crate::observe::oom::model::{
    Before, Capture, CgroupState, Completeness, Constraint, Known, Memory,
};
use crate::observe::oom::sentence::size;

/// Entries of memory.stat that are shown.
const GROWN: usize = 5;
/// Growth of an entry that is not worth a word, bytes.
const LITTLE: u64 = 64 << 10;

/// The report.
pub(super) fn report(view: &View<'_>, all: bool, terminal: &Terminal) -> String {
    let mut page = Page {
        text: String::new(),
        terminal,
    };
    let capture = view.capture;
    heading(view, &mut page);
    who(capture, &mut page);
    why(view, &mut page);
    grew(capture, &mut page);
    enough(view, &mut page);
    threads(view, all, &mut page);
    missing(view, &mut page);
    page.text
}

fn heading(view: &View<'_>, page: &mut Page<'_>) {
    let capture = view.capture;
    let time = UNIX_EPOCH + Duration::from_nanos(capture.killed_unix_ns);
    let how = match capture.completeness {
        Completeness::Complete => "every thread was seen".to_owned(),
        Completeness::SomeThreads => format!("{} threads were not seen", capture.threads_missing),
        Completeness::KillOnly => "no thread was seen at its exit".to_owned(),
    };
    let time = humantime::format_rfc3339_millis(time);
    let line = page.terminal.dim(&format!("{}  {time}  {how}", capture.id));
    page.line(&line);
    let summary = page.terminal.show(&view.summary);
    let summary = page.terminal.colour(AnsiColor::Red, &summary);
    page.line(&summary);
    page.line("");
}

fn who(capture: &Capture, page: &mut Page<'_>) {
    let victim = &capture.victim;
    let known = |known: &Known<String>| match known {
        Known::Value(text) => text.clone(),
        Known::Absent(absent) => format!("not known: {absent}"),
    };
    let number = |value: Option<String>| value.unwrap_or_else(|| "?".to_owned());
    let mut lines = vec![
        format!(
            "{}, pid {}, user {}, {}, oom_score_adj {}",
            victim.comm,
            victim.pid,
            number(victim.uid.value().map(ToString::to_string)),
            count(victim.threads, "thread"),
            number(victim.oom_score_adj.value().map(ToString::to_string)),
        ),
        format!("program {}", known(&victim.exe)),
    ];
    lines.push(match &victim.command {
        Known::Value(arguments) => {
            let cut = match victim.command_cut_bytes {
                0 => String::new(),
                bytes => format!(" ... and {bytes} bytes more"),
            };
            format!("command {}{cut}", arguments.join(" "))
        }
        Known::Absent(absent) => format!("command not known: {absent}"),
    });
    lines.push(format!("cgroup {}", known(&victim.cgroup.path)));
    if let Some(id) = &victim.container_id {
        lines.push(format!("container {id}"));
    }
    if let Some(trace) = capture.trace.value() {
        lines.push(format!("trace {}", trace.trace_id));
    }
    lines.push(format!("memory {}", memory(&victim.memory)));
    page.under("who", &lines);
    page.line("");
}

fn memory(memory: &Memory) -> String {
    let parts = [
        ("anonymous", &memory.anon_bytes),
        ("files", &memory.file_bytes),
        ("shared", &memory.shmem_bytes),
        ("swapped", &memory.swap_bytes),
        ("page tables", &memory.page_table_bytes),
    ];
    let parts = parts.map(|(name, bytes)| format!("{name} {}", bytes_or(bytes)));
    parts.join(", ")
}

fn why(view: &View<'_>, page: &mut Page<'_>) {
    let Capture {
        kill,
        asker,
        victim,
        cgroup,
        ..
    } = view.capture;
    let mut lines = Vec::new();
    let what = match cgroup.path.value() {
        Some(path) if cgroup.id != victim.cgroup.id => format!("cgroup {path}: "),
        _ => String::new(),
    };
    let asked = match kill.asked_bytes.value() {
        Some(bytes) => format!(", and {} more was asked for", size(*bytes)),
        None => String::new(),
    };
    lines.push(format!("{what}{}{asked}", ran_out(view.capture)));
    if let Some(limit) = kill.swap_limit_bytes.value() {
        let what = if kill.swap_with_memory {
            "memory and swap"
        } else {
            "swap"
        };
        lines.push(format!(
            "{what}: used {} of {}",
            bytes_or(&kill.swap_usage_bytes),
            size(*limit)
        ));
    }
    lines.push(if asker.pid == victim.pid {
        "asked for by the victim itself".to_owned()
    } else {
        let place = asker.cgroup.path.value().map(|path| format!(" in {path}"));
        format!(
            "asked for by {}, pid {}{}",
            asker.comm,
            asker.pid,
            place.unwrap_or_default()
        )
    });
    if let Known::Value(points) = &kill.points {
        lines.push(format!("chosen with {points} points"));
    }
    if kill.group.is_some() {
        lines.push("killed with its whole cgroup: memory.oom.group is 1".to_owned());
    }
    page.under("why", &lines);
    if let Known::Value(frames) = &view.asker_stack {
        kernel_frames("asked in", frames, page);
    }
    page.line("");
}

/// What ran out, and how much of it there was.
fn ran_out(capture: &Capture) -> String {
    let kill = &capture.kill;
    let what = match kill.constraint {
        Constraint::Global => {
            // Without a limit of a cgroup it is the node that was recorded before.
            let before = capture.before.value();
            let total = before.and_then(|before| before.limit.value());
            let of = match (total, kill.total_bytes.value()) {
                (Some(total), _) => format!(" of {}", size(*total)),
                (None, Some(total)) => format!(" of {}, swap included,", size(*total)),
                (None, None) => String::new(),
            };
            return format!("the node's memory{of} ran out");
        }
        Constraint::Cpuset => "the memory of its cpuset's nodes ran out",
        Constraint::MemoryPolicy => "the memory of its policy's nodes ran out",
        Constraint::Unknown if kill.limit_bytes.value().is_none() => "what ran out is not known",
        Constraint::Cgroup | Constraint::Unknown => {
            let [used, limit] = [&kill.usage_bytes, &kill.limit_bytes].map(bytes_or);
            return format!("used {used} of {limit}");
        }
    };
    what.to_owned()
}

fn grew(capture: &Capture, page: &mut Page<'_>) {
    let mut lines = Vec::new();
    match &capture.before {
        Known::Value(before) => usage(before, &mut lines),
        Known::Absent(absent) => lines.push(format!("before the kill: not known: {absent}")),
    }
    if let (Known::Value(before), Known::Value(state)) = (&capture.before, &capture.state) {
        entries(before, state, &mut lines);
    }
    if let Known::Value(state) = &capture.state {
        let pressure = state.pressure.value();
        lines.extend(pressure.map(|pressure| {
            format!(
                "some task waited for memory in {:.1} % of the 10 s before, all did in {:.1} %",
                pressure.some.avg10, pressure.full.avg10
            )
        }));
    }
    page.under("grew", &lines);
    page.line("");
}

/// From where to where the usage went.
fn usage(before: &Before, lines: &mut Vec<String>) {
    let (Some(first), Some(last)) = (before.usage.first(), before.usage.last()) else {
        lines.push("no usage was sampled before the kill".to_owned());
        return;
    };
    let rate = match &before.growth {
        Known::Value(rate) => format!("{} a second", signed(*rate)),
        Known::Absent(absent) => format!("rate not known: {absent}"),
    };
    lines.push(format!(
        "usage went from {} to {} in {:.1} s: {rate}",
        size(first.bytes),
        size(last.bytes),
        last.at.since(first.at).as_secs_f64(),
    ));
    for process in before.processes.value().into_iter().flatten().take(3) {
        lines.push(format!(
            "{}, pid {}, held {}",
            process.name,
            process.pid,
            size(process.rss_bytes)
        ));
    }
}

/// The entries of memory.stat that grew most.
fn entries(before: &Before, state: &CgroupState, lines: &mut Vec<String>) {
    let (Known::Value(then), Known::Value(now)) = (&before.stat, &state.stat) else {
        return;
    };
    // Counts of events are among them; what is in bytes is known by name.
    let bytes = [
        "anon",
        "file",
        "shmem",
        "kernel_stack",
        "pagetables",
        "percpu",
        "sock",
        "slab",
        "total_rss",
        "total_cache",
        "total_shmem",
        "total_swap",
    ];
    let grown = bytes.iter().filter_map(|name| {
        let (then, now) = (then.get(*name)?, now.get(*name)?);
        Some((
            now.checked_sub(*then).filter(|more| *more >= LITTLE)?,
            name,
            then,
            now,
        ))
    });
    let mut grown: Vec<_> = grown.collect();
    grown.sort_unstable_by(|a, b| b.cmp(a));
    for (more, name, then, now) in grown.into_iter().take(GROWN) {
        let name = name.strip_prefix("total_").unwrap_or(name);
        lines.push(format!(
            "{name} +{} ({} to {})",
            size(more),
            size(*then),
            size(*now)
        ));
    }
}

fn enough(view: &View<'_>, page: &mut Page<'_>) {
    let lines = match &view.enough {
        Known::Value(enough) => vec![
            format!(
                "at least {}{}; try {}",
                size(enough.at_least_bytes),
                match enough.limit {
                    Limit::Memory => "",
                    Limit::MemoryAndSwap => " for memory and swap",
                },
                size(enough.try_bytes)
            ),
            enough.because.clone(),
        ],
        Known::Absent(absent) => vec![format!("cannot be said: {absent}")],
    };
    page.under("enough", &lines);
}

fn missing(view: &View<'_>, page: &mut Page<'_>) {
    if view.missing.is_empty() {
        return;
    }
    page.line("");
    let title = page.terminal.bold("not in this capture");
    page.line(&title);
    let widest = view
        .missing
        .iter()
        .map(|missing| missing.field.len())
        .max()
        .unwrap_or(0);
    for missing in &view.missing {
        let times = match missing.times {
            1 => String::new(),
            n => format!(" ({n} times)"),
        };
        let mut line = String::new();
        let why = page.terminal.show(&missing.why.to_string());
        // Writing to a string cannot fail.
        let _ = write!(line, "  {}  {why}{times}", fit(missing.field, widest));
        let line = page.terminal.dim(&line);
        page.line(&line);
    }
}

fn bytes_or(known: &Known<u64>) -> String {
    known
        .value()
        .map_or_else(|| "?".to_owned(), |bytes| size(*bytes))
}

fn count(n: u32, what: &str) -> String {
    match n {
        1 => format!("1 {what}"),
        n => format!("{n} {what}s"),
    }
}

/// A rate with its sign.
fn signed(rate: f64) -> String {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it is positive, and the cast goes to the nearest end where it does not fit"
    )]
    let bytes = rate.abs() as u64;
    let sign = if rate < 0.0 { '-' } else { '+' };
    format!("{sign}{}", size(bytes))
}
