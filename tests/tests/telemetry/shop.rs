//! A function named `shop`, started under a daemon, and what a collector has to get of it.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use hearth_tests::collector::{Got, Item};
use hearth_tests::daemon::Daemon;
use hearth_tests::start::Start;

/// A program that only this test starts: a copy of one that does nothing.
pub(crate) struct Program {
    pub(crate) folder: tempfile::TempDir,
}

impl Program {
    pub(crate) fn new() -> Result<Self> {
        let folder = tempfile::TempDir::with_prefix("hearth-telemetry-")?;
        std::fs::copy("/bin/true", folder.path().join("nothing"))?;
        Ok(Self { folder })
    }

    pub(crate) fn path(&self) -> String {
        self.folder.path().join("nothing").display().to_string()
    }

    /// Settings by which only this program's starts are told.
    pub(crate) fn settings(&self, more_of_rule: &str, otlp: &str) -> String {
        format!(
            "signals = [\"cold_start\"]\nmode = \"sandbox\"\ncgroups = false\n[[start]]\nexe = \"{}\"\n\
             function = \"shop\"\n{more_of_rule}\n[otlp]\ninterval = \"1s\"\n{otlp}\n",
            self.path()
        )
    }

    /// Starts it `count` times, and waits until the daemon has told every one.
    pub(crate) fn run(&self, daemon: &Daemon, count: usize) -> Result<Vec<Start>> {
        let before = daemon.starts(|_| true).len();
        for _ in 0..count {
            ensure!(Command::new(self.path()).status()?.success());
        }
        let starts = daemon.wait_for(before + count, |_| true)?;
        Ok(starts[before..].to_vec())
    }
}

pub(crate) fn is_root(span: &Item) -> bool {
    span.fields.get("Parent ID").is_some_and(String::is_empty)
}

pub(crate) fn roots(got: &Got) -> impl Iterator<Item = &Item> {
    got.spans.iter().filter(|span| is_root(span))
}

pub(crate) fn points(points: &[&Item]) -> Result<u64> {
    points.iter().map(|point| point.number("Value")).sum()
}

/// The trace of `start` tells the same as the start itself.
pub(crate) fn agrees(got: &Got, start: &Start) -> Result<()> {
    let pid = start.identity.pid.to_string();
    let root = roots(got)
        .find(|span| span.has("process.pid", &pid))
        .context("no root span")?;
    ensure!(root.field("Name")? == "cold_start shop", "{root:#?}");
    ensure!(
        root.has("faas.coldstart", "true") && root.has("faas.name", "shop"),
        "{root:#?}"
    );
    ensure!(root.has("hearth.ready", &start.ready), "{root:#?}");
    let (begin, end) = (root.number("Start time")?, root.number("End time")?);
    ensure!(end - begin == start.total_ns, "{root:#?}");

    let trace = root.field("Trace ID")?;
    let mut phases = got
        .spans
        .iter()
        .filter(|span| span.fields.get("Parent ID") == root.fields.get("ID"))
        .collect::<Vec<_>>();
    phases.sort_by_key(|span| span.number("Start time").unwrap_or_default());
    ensure!(phases.len() == start.phases.len(), "{phases:#?}");
    let mut next = begin;
    for (span, phase) in phases.iter().zip(&start.phases) {
        ensure!(span.field("Trace ID")? == trace, "{span:#?}");
        ensure!(
            span.number("Start time")? == next,
            "there is a gap before {span:#?}"
        );
        next = span.number("End time")?;
        ensure!(
            next - span.number("Start time")? == phase.end_ns - phase.begin_ns,
            "{span:#?}"
        );
        ensure!(span.field("Name")?.starts_with(&phase.name), "{span:#?}");
        for (cause, time) in [
            ("running", phase.running_ns),
            ("queued", phase.queued_ns),
            ("io", phase.io_ns),
            ("blocked", phase.blocked_ns),
        ] {
            // Seconds; and what was not measured is not there.
            let told = span.attributes.get(&format!("hearth.phase.{cause}"));
            let told = told.map(|seconds| seconds.parse::<f64>()).transpose()?;
            let expected = time.map(|time| Duration::from_nanos(time).as_secs_f64());
            ensure!(
                told == expected,
                "{cause} is {told:?} and not {expected:?}: {span:#?}"
            );
        }
    }
    ensure!(next == end, "the phases do not reach the end of {root:#?}");

    let log = got
        .logs
        .iter()
        .find(|log| log.has("process.pid", &pid))
        .context("no log record")?;
    ensure!(log.number("Timestamp")? == end, "{log:#?}");
    ensure!(log.field("Trace ID")? == trace, "{log:#?}");
    ensure!(log.field("Span ID")? == root.field("ID")?, "{log:#?}");
    for item in [root, log] {
        ensure!(
            item.resource
                .get("service.name")
                .is_some_and(|name| name == "hearth")
        );
        ensure!(
            item.resource.contains_key("host.name"),
            "{:?}",
            item.resource
        );
    }
    Ok(())
}
