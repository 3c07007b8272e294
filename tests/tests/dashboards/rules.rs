//! The rules file by its lines: which series it records, which alerts it raises.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context, Result, ensure};

use crate::root;

/// Names of the files.
const NAMES: [&str; 6] = [
    "cold-start",
    "cgroup-lock",
    "heal",
    "oom",
    "pools",
    "retransmit",
];

pub(crate) struct Rules {
    pub(crate) name: &'static str,
    pub(crate) text: String,
    pub(crate) records: Vec<String>,
    pub(crate) alerts: Vec<String>,
}

impl Rules {
    /// Every file of them.
    pub(crate) fn all() -> Result<Vec<Self>> {
        NAMES.iter().map(|name| Self::of(name)).collect()
    }

    fn of(name: &'static str) -> Result<Self> {
        let text = fs::read_to_string(root().join(format!("alerts/{name}.yaml")))?;
        Ok(Self {
            name,
            records: values(&text, "- record: "),
            alerts: values(&text, "- alert: "),
            text,
        })
    }

    /// Whether an expectation of each alert, and one of its absence, is in the promtool tests.
    pub(crate) fn check_tested_both_ways(&self) -> Result<()> {
        let tests = root().join(format!("alerts/tests/{}.test.yaml", self.name));
        let tests = fs::read_to_string(tests)?;
        let mut fires = BTreeSet::new();
        let mut silent = BTreeSet::new();
        for test in tests.split("- alertname: ").skip(1) {
            let name = test.lines().next().context("a name follows")?.to_owned();
            let nothing = test.contains("exp_alerts: []");
            if nothing {
                silent.insert(name)
            } else {
                fires.insert(name)
            };
        }
        let alerts: BTreeSet<_> = self.alerts.iter().cloned().collect();
        ensure!(fires == alerts, "tested to fire: {fires:?}, of {alerts:?}");
        ensure!(
            silent == alerts,
            "tested not to fire: {silent:?}, of {alerts:?}"
        );
        Ok(())
    }

    /// Whether each alert links to a page of its own that says what to do.
    pub(crate) fn check_pages(&self) -> Result<()> {
        let base = concat!(env!("CARGO_PKG_REPOSITORY"), "/blob/main/docs/runbooks");
        let links = values(&self.text, "runbook_url: ");
        let expected: Vec<_> = self
            .alerts
            .iter()
            .map(|alert| format!("{base}/{alert}.md"))
            .collect();
        ensure!(links == expected, "links: {links:#?}");
        for alert in &self.alerts {
            let page = fs::read_to_string(root().join(format!("docs/runbooks/{alert}.md")))
                .with_context(|| format!("the page of {alert}"))?;
            ensure!(
                page.starts_with(&format!("# {alert}\n")),
                "the title of {alert}.md"
            );
            for heading in ["Meaning", "Impact", "Diagnosis", "Mitigation"] {
                ensure!(
                    page.contains(&format!("\n## {heading}\n")),
                    "{alert}.md: {heading}"
                );
            }
        }
        Ok(())
    }
}

fn values(text: &str, key: &str) -> Vec<String> {
    let values = text
        .lines()
        .filter_map(|line| line.trim_start().strip_prefix(key));
    values.map(str::to_owned).collect()
}
