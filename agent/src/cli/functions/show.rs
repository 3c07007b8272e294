//! Functions, for people.

use std::fmt::Write as _;

use crate::cli::figures::count;
use crate::cli::terminal::{Terminal, fit, right};
use crate::functions::view::FunctionView;

/// One a line.
pub(super) fn list(all: &[FunctionView], terminal: &Terminal) -> String {
    if all.is_empty() {
        return "no functions: `hearth fn deploy` deploys one\n".to_owned();
    }
    let names = all.iter().map(|one| one.deployed.name.as_str().len());
    let width = names.chain([4]).max().unwrap_or(4);
    let mut text = String::new();
    let heading = format!(
        "{}  {}  {}  {}  {}  {}  {}  {}  COMMAND",
        fit("NAME", width),
        right("VERSION", 7),
        right("MEMORY", 7),
        right("BUSY", 4),
        right("READY", 5),
        right("WAIT", 4),
        right("INVOKED", 9),
        right("FAILED", 7),
    );
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{}", terminal.dim(&heading));
    for one in all {
        let failed = one.invocations - one.answered.min(one.invocations);
        let line = format!(
            "{}  {}  {}  {}  {}  {}  {}  {}  {}",
            fit(one.deployed.name.as_str(), width),
            right(&one.deployed.version.to_string(), 7),
            right(&one.deployed.definition.memory.to_string(), 7),
            right(&one.pool.busy.to_string(), 4),
            right(&one.pool.ready.to_string(), 5),
            right(&one.pool.waiting.to_string(), 4),
            right(&count(one.invocations), 9),
            right(&count(failed), 7),
            terminal.show(&one.deployed.command.join(" ")),
        );
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

/// All of one, but for what is in its environment: that is often a secret.
pub(super) fn show(one: &FunctionView, terminal: &Terminal) -> String {
    let deployed = &one.deployed;
    let definition = &deployed.definition;
    let layers = definition.root.iter().zip(&deployed.layers);
    let mut rows = vec![
        ("name", deployed.name.to_string()),
        ("version", deployed.version.to_string()),
        ("deployed", deployed_at(deployed.deployed_unix_ms)),
    ];
    rows.extend(layers.map(|(source, digest)| {
        let digits: String = digest.digits().chars().take(12).collect();
        ("layer", format!("{source} ({digits})"))
    }));
    let names: Vec<&str> = deployed.environment.keys().map(String::as_str).collect();
    rows.extend([
        ("command", deployed.command.join(" ")),
        ("directory", deployed.directory.display().to_string()),
        ("environment", names.join(" ")),
        ("memory", definition.memory.to_string()),
        ("swap", definition.swap.to_string()),
        ("writable", definition.writable.to_string()),
        ("cpu", format!("{} millicores", definition.cpu_millicores)),
        ("pids", definition.pids.to_string()),
        ("open files", definition.open_files.to_string()),
        ("timeout", definition.timeout.to_string()),
        ("init timeout", definition.init_timeout.to_string()),
        ("syscalls", definition.syscalls.join(" ")),
        ("policy", definition.policy.to_string()),
        ("instances", instances(one)),
        ("requests", {
            let pool = &one.pool;
            format!(
                "{} found one ready, {} waited for one at work, {} for a start; {} refused, {} wait",
                count(pool.hits),
                count(pool.queued),
                count(pool.misses),
                count(pool.refused),
                pool.waiting,
            )
        }),
        ("back-off", back_off(one)),
        ("invocations", {
            let failed = one.invocations - one.answered.min(one.invocations);
            format!(
                "{}, of which {} failed",
                count(one.invocations),
                count(failed)
            )
        }),
        ("starts", count(one.starts)),
    ]);
    let refused = one.refused_calls.iter();
    let refused: Vec<String> = refused
        .map(|(name, times)| format!("{name} ({times})"))
        .collect();
    rows.push(("refused calls", refused.join(", ")));
    let mut text = String::new();
    for (name, value) in rows {
        if !value.is_empty() {
            // Writing to a string cannot fail.
            let _ = writeln!(
                text,
                "{}  {}",
                terminal.dim(&fit(name, 13)),
                terminal.show(&value)
            );
        }
    }
    text
}

fn instances(one: &FunctionView) -> String {
    let (pool, definition) = (&one.pool, &one.deployed.definition);
    let mut text = format!(
        "{} busy, {} ready, {} starting; there should be {}, {} to {}",
        pool.busy,
        pool.ready,
        pool.starting,
        pool.target,
        definition.min_instances,
        definition.max_instances,
    );
    if definition.reserved_instances > 0 {
        // Writing to a string cannot fail.
        let _ = write!(text, ", {} of them ready", definition.reserved_instances);
    }
    text
}

/// Empty where it does not keep failing.
fn back_off(one: &FunctionView) -> String {
    if one.pool.back_off_ms == 0 {
        return String::new();
    }
    let seconds = one.pool.back_off_ms.div_ceil(1000);
    let failures = one.pool.failures;
    format!("it failed {failures} times, and is left alone for {seconds} s")
}

/// In UTC, as RFC 3339 has it.
fn deployed_at(unix_ms: u64) -> String {
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_millis(unix_ms);
    humantime::format_rfc3339_seconds(time).to_string()
}
