//! Snapshots, for people.

use std::fmt::Write as _;
use std::time::{Duration, UNIX_EPOCH};

use hearth_runtime::snapshot::{Kind, Manifest};

use super::view::{Status, View};
use crate::cli::terminal::{Terminal, fit, right};
use crate::observe::oom::sentence::size;

/// One a line.
pub(super) fn list(all: &[View], terminal: &Terminal) -> String {
    if all.is_empty() {
        return "no snapshots\n".to_owned();
    }
    let names = all.iter().map(|one| one.function.len());
    let width = names.chain([8]).max().unwrap_or(8);
    let heading = format!(
        "{}  {}  {}  {}  {}  {}  {}  {}  STATUS",
        fit("ID", 12),
        fit("FUNCTION", width),
        right("VERSION", 7),
        right("GENERATION", 10),
        fit("KIND", 8),
        fit("TAKEN", 20),
        right("MEMORY", 10),
        right("ON DISK", 10),
    );
    // Writing to a string cannot fail.
    let mut text = terminal.dim(&heading) + "\n";
    for one in all {
        let bytes = |bytes: Option<u64>| bytes.map_or_else(|| "?".to_owned(), size);
        let status = match (one.status, &one.why) {
            (Status::Good, _) | (_, None) => one.status.word().to_owned(),
            (status, Some(why)) => format!("{}: {why}", status.word()),
        };
        let line = format!(
            "{}  {}  {}  {}  {}  {}  {}  {}  {}",
            one.id.get(..12).unwrap_or_default(),
            fit(&one.function, width),
            right(&one.version.to_string(), 7),
            right(&one.generation.to_string(), 10),
            fit(one.kind.map_or("?", kind), 8),
            fit(&one.created_unix_ms.map_or_else(|| "?".to_owned(), at), 20),
            right(&bytes(one.memory_bytes), 10),
            right(&bytes(one.stored_bytes), 10),
            terminal.show(&status),
        );
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

/// All of one.
pub(super) fn inspect(one: &View, terminal: &Terminal) -> String {
    let mut rows = vec![
        ("id", one.id.clone()),
        (
            "function",
            format!("{}, version {}", one.function, one.version),
        ),
        ("configuration", one.config.clone()),
        ("generation", one.generation.to_string()),
        ("status", one.status.word().to_owned()),
    ];
    rows.extend(one.why.clone().map(|why| ("why", why)));
    if let Some(manifest) = &one.manifest {
        rows.extend(of_manifest(manifest));
    }
    rows.extend(one.stored_bytes.map(|bytes| ("on disk", size(bytes))));
    rows.extend(
        one.path
            .as_ref()
            .map(|path| ("path", path.display().to_string())),
    );
    let failures = one.failures.iter().flatten();
    rows.extend(failures.map(|(way, count)| ("failed", format!("{count} times: {way}"))));
    let mut text = String::new();
    for (name, value) in rows {
        let _ = writeln!(text, "{}  {}", fit(name, 13), terminal.show(&value));
    }
    text
}

fn of_manifest(manifest: &Manifest) -> Vec<(&'static str, String)> {
    let cpu = &manifest.cpu;
    let part =
        |part: &hearth_runtime::snapshot::Part| format!("{}, {}", size(part.bytes), part.digest);
    let mut rows = vec![
        ("kind", kind(manifest.kind).to_owned()),
        ("taken", at(manifest.created_unix_ms)),
        (
            "by",
            format!(
                "{}, state format {}",
                manifest.producer, manifest.state_format
            ),
        ),
        (
            "processor",
            format!("{}, {} words of features", cpu.vendor, cpu.features.len()),
        ),
        ("memory", part(&manifest.memory)),
    ];
    rows.extend(manifest.regions.iter().map(|region| {
        let (from, bytes) = (region.guest, size(region.bytes));
        ("", format!("{bytes} at {from:#x} of the guest"))
    }));
    rows.push(("state", part(&manifest.state)));
    rows.extend(manifest.disk.as_ref().map(|disk| ("disk", part(disk))));
    rows
}

const fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Template => "template",
        Kind::Busy => "busy",
    }
}

fn at(unix_ms: u64) -> String {
    // A manifest has no time that is none.
    let at = UNIX_EPOCH + Duration::from_millis(unix_ms);
    humantime::format_rfc3339_seconds(at).to_string()
}
