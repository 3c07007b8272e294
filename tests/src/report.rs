//! What the tests' programs say about themselves.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tempfile::TempDir;

use crate::clock;

/// A program's own times, on the boot clock.
#[derive(Clone, Debug, Deserialize)]
pub struct Report {
    /// At its first statement, ns.
    pub main_ns: u64,
    /// Just after it had become ready, ns.
    pub ready_ns: u64,
    /// Its process id.
    pub pid: u32,
    /// Field 22 of its `/proc/PID/stat`.
    pub start_ticks: u64,
    #[serde(default)]
    clock: Option<String>,
}

/// What a program of one cause was charged with between two moments of its own.
#[derive(Clone, Debug, Deserialize)]
pub struct Charge {
    /// The moment before, ns.
    pub begin_ns: u64,
    /// The moment after, ns.
    pub end_ns: u64,
    /// Processor time of the process, ns.
    pub run_ns: u64,
    /// Time of the main thread in a run queue, ns.
    pub delay_ns: u64,
    /// Faults served without I/O.
    pub minor_faults: u64,
    /// Faults that waited for I/O.
    pub major_faults: u64,
    /// Bytes fetched from storage.
    pub read_bytes: u64,
}

/// A file that programs write their lines to.
#[derive(Debug)]
pub struct ReportFile {
    folder: TempDir,
}

impl ReportFile {
    /// A fresh one.
    pub fn new() -> Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("hearth-report-")
            .tempdir()
            .context("make a folder for the report")?;
        Ok(Self { folder })
    }

    /// The folder it is in, for whatever else the test makes.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Where to write.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.folder.path().join("report.json")
    }

    /// Every line that has the fields of `T`.
    pub fn lines<T: DeserializeOwned>(&self) -> Result<Vec<T>> {
        let path = self.path();
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("no program reported into {}", path.display()))?;
        Ok(text
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect())
    }

    /// The only line that has the fields of `T`.
    pub fn only<T: DeserializeOwned>(&self) -> Result<T> {
        let mut lines = self.lines()?;
        ensure!(lines.len() == 1, "{} reports instead of one", lines.len());
        lines.pop().context("one report")
    }

    /// The reports of a program's times, on the boot clock.
    pub fn reports(&self) -> Result<Vec<Report>> {
        let offset = clock::monotonic_to_boottime_ns();
        let mut reports: Vec<Report> = self.lines()?;
        for report in &mut reports {
            if report.clock.as_deref() == Some("monotonic") {
                report.main_ns += offset;
                report.ready_ns += offset;
            }
        }
        Ok(reports)
    }

    /// The only report of a program's times.
    pub fn report(&self) -> Result<Report> {
        let mut reports = self.reports()?;
        ensure!(
            reports.len() == 1,
            "{} reports instead of one",
            reports.len()
        );
        reports.pop().context("one report")
    }
}
