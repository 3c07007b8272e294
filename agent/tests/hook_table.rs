//! `docs/hooks.md` is written from the hook table, and says what the table says.

use std::fmt::Write as _;
use std::path::Path;

use hearth::kernel::table::{Point, Set, Signal, Strategy, hooks};

/// Set to write the page instead of comparing it.
const UPDATE: &str = "HEARTH_UPDATE_DOCS";

#[test]
fn the_page_is_what_the_table_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/hooks.md");
    let wanted = page();
    if std::env::var_os(UPDATE).is_some() {
        std::fs::write(&path, &wanted).expect("docs/hooks.md can be written");
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == wanted,
        "docs/hooks.md is not what the hook table says; write it with \
         `{UPDATE}=1 cargo test -p hearth --test hook_table`"
    );
}

fn page() -> String {
    let mut page = String::from(
        "# The hook table\n\n\
         For each kind, the strategies that can stamp it, best first. `hearth doctor` says which \
         of them this kernel gave, and why it refused better ones; `strategies` in the JSON of a \
         start names the ones in force.\n\n\
         \"Late by\" is how much later than the boundary itself the stamp may be. \"Watch set\" \
         strategies are attached only while something is watched: for the whole start under \
         `hearth trace`, for `watch_share` of the time under `hearth run`.\n\n\
         This page is written from `agent/src/kernel/table/`:\n\
         `HEARTH_UPDATE_DOCS=1 cargo test -p hearth --test hook_table`.\n",
    );
    for signal in Signal::ALL {
        if hooks().any(|hook| hook.signal == signal) {
            let _ = write!(page, "\n## {}\n", signal.name());
        }
        for hook in hooks().filter(|hook| hook.signal == signal) {
            let required = if hook.required { " Required." } else { "" };
            let _ = write!(
                page,
                "\n### {}\n\nFor {}.{required}\n\n",
                hook.kind, hook.purpose
            );
            page.push_str(
                "| strategy | set | late by | attaches to | note |\n|---|---|---|---|---|\n",
            );
            for strategy in hook.strategies {
                row(&mut page, strategy);
            }
        }
    }
    page
}

fn row(page: &mut String, strategy: &Strategy) {
    let set = match strategy.set {
        Set::AlwaysOn => "always on",
        Set::Watch => "watch set",
    };
    let late = match strategy.error_ns {
        None => "by program".to_owned(),
        Some(0) => "0".to_owned(),
        Some(ns) if ns < 1000 => format!("{ns} ns"),
        Some(ns) => format!("{} µs", ns / 1000),
    };
    let mut points: Vec<String> = Vec::new();
    for program in strategy.programs {
        let point = match program.point {
            Point::TpBtf(name)
            | Point::RawTp(name)
            | Point::Fentry(name)
            | Point::Fexit(name)
            | Point::Kprobe(name)
            | Point::Kretprobe(name) => format!("`{name}`"),
            Point::Uprobe => "programs".to_owned(),
        };
        if !points.contains(&point) {
            points.push(point);
        }
    }
    let _ = writeln!(
        page,
        "| {} | {set} | {late} | {} | {} |",
        strategy.name,
        points.join(", "),
        strategy.note
    );
}
