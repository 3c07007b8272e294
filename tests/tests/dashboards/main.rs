//! Dashboards and alerts against what reads them: Grafana's types, promtool, and a Prometheus
//! that scrapes the agent while programs start.

mod dashboard;
mod functions;
mod load;
mod prometheus;
mod rules;
mod schema;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use hearth_tests::{machine, requirement};
use serde_json::json;

use crate::dashboard::{Dashboard, Query};
use crate::load::Load;
use crate::prometheus::{Prometheus, promtool};
use crate::rules::Rules;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

#[test]
fn dashboards_hold_only_what_grafana_knows() -> Result<()> {
    Dashboard::all()?.iter().try_for_each(schema::check)
}

#[test]
fn panels_fill_the_grid_without_overlap() -> Result<()> {
    Dashboard::all()?
        .iter()
        .try_for_each(Dashboard::check_layout)
}

#[test]
fn dashboards_fit_any_grafana() -> Result<()> {
    for dashboard in Dashboard::all()? {
        dashboard.check_sources()?;
        dashboard.check_trace_link()?;
    }
    Ok(())
}

#[test]
fn promtool_reads_every_query_of_the_dashboards() -> Result<()> {
    let rules: Vec<_> = queries()?
        .iter()
        .enumerate()
        .map(|(i, query)| json!({ "record": format!("query:{i}"), "expr": query.promql }))
        .collect();
    // JSON is YAML.
    let file = tempfile::NamedTempFile::with_suffix(".yaml")?;
    serde_json::to_writer(
        &file,
        &json!({ "groups": [{ "name": "dashboard", "rules": rules }] }),
    )?;
    promtool(["check".as_ref(), "rules".as_ref(), file.path().as_os_str()])?;
    Ok(())
}

fn queries() -> Result<Vec<Query>> {
    let mut queries = Vec::new();
    for dashboard in Dashboard::all()? {
        queries.extend(dashboard.queries()?);
    }
    Ok(queries)
}

#[test]
fn rules_pass_promtool_check_and_test() -> Result<()> {
    let alerts = root().join("alerts");
    for rules in Rules::all()? {
        let file = alerts.join(format!("{}.yaml", rules.name));
        let lint = ["check", "rules", "--lint=all", "--lint-fatal"].map(AsRef::as_ref);
        promtool(lint.into_iter().chain([file.as_os_str()]))?;
        let tests = alerts.join(format!("tests/{}.test.yaml", rules.name));
        promtool(["test".as_ref(), "rules".as_ref(), tests.as_os_str()])?;
    }
    Ok(())
}

#[test]
fn every_alert_is_tested_both_ways_and_has_its_page() -> Result<()> {
    for rules in Rules::all()? {
        ensure!(!rules.alerts.is_empty(), "{} raises none", rules.name);
        rules.check_tested_both_ways()?;
        rules.check_pages()?;
    }
    Ok(())
}

/// The queries answer with what a real agent tells about real starts, and the one thing that is
/// wrong with those starts (some never become ready) raises its alert and no other.
#[test]
fn every_query_answers_while_programs_start() -> Result<()> {
    requirement::root()?;
    let _hold = machine::shared()?;
    let load = Load::start()?;
    let prometheus = Prometheus::start(load.metrics)?;
    let rules = Rules::all()?;

    // Of the alerts one is meant to fire: the others' marks on their dashboards stay empty.
    let quiet = |promql: &str| promql.starts_with("ALERTS") && !promql.contains("ColdStart");
    let mut waiting: Vec<(String, String)> = queries()?
        .into_iter()
        .filter(|query| !quiet(&query.promql))
        .map(|query| (query.place, query.promql))
        .collect();
    waiting.extend(
        rules
            .iter()
            .flat_map(|rules| &rules.records)
            .map(|name| ("recorded".to_owned(), name.clone())),
    );
    // `or vector(0)` answers for a metric that does not exist, too.
    let texts = waiting
        .iter()
        .map(|(_, promql)| promql.as_str())
        .chain(rules.iter().map(|rules| rules.text.as_str()));
    let metrics: BTreeSet<String> = texts.flat_map(dashboard::metrics_in).collect();
    waiting.extend(metrics.into_iter().map(|name| ("metric".to_owned(), name)));
    let firing =
        r#"ALERTS{alertname="ColdStartNeverReady",faas_name="report",alertstate="firing"}"#;
    waiting.push(("alert".to_owned(), firing.to_owned()));

    // Not a bound on speed: only an end for a query that would never answer.
    let deadline = Instant::now() + Duration::from_mins(2);
    while !waiting.is_empty() && Instant::now() < deadline {
        let mut still = Vec::new();
        for (place, promql) in waiting {
            if !prometheus.answers(&promql)? {
                still.push((place, promql));
            }
        }
        waiting = still;
        std::thread::sleep(Duration::from_secs(1));
    }
    let said = load.daemon.errors();
    ensure!(
        waiting.is_empty(),
        "no answer to {waiting:#?}; the agent said: {said}"
    );

    let others = r#"ALERTS{alertname!="ColdStartNeverReady",alertstate="firing"}"#;
    ensure!(
        !prometheus.answers(others)?,
        "{}",
        prometheus.query(others)?
    );
    let failed = "sum(prometheus_rule_evaluation_failures_total) > 0";
    ensure!(
        !prometheus.answers(failed)?,
        "{}",
        prometheus.query(failed)?
    );
    Ok(())
}
