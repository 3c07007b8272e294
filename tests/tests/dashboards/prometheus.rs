//! A Prometheus of our own, and promtool, which asks it.

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use hearth_tests::child::Guard;
use hearth_tests::{machine, requirement};
use serde_json::Value;
use tempfile::TempDir;

use crate::root;

/// One of Prometheus' programs: what set-up unpacked, else what is installed.
pub(crate) fn program(name: &str) -> Result<PathBuf> {
    let unpacked = machine::target().join("tools/bin").join(name);
    if unpacked.exists() {
        return Ok(unpacked);
    }
    requirement::tool(name, "prometheus")
}

/// Runs `promtool` and gives what it printed.
pub(crate) fn promtool<'a>(arguments: impl IntoIterator<Item = &'a OsStr>) -> Result<String> {
    let output = Command::new(program("promtool")?)
        .args(arguments)
        .output()
        .context("run promtool")?;
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    let err = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "promtool: {out}{err}");
    Ok(out)
}

/// Scrapes one agent each second and evaluates the rules as often; ends when dropped.
pub(crate) struct Prometheus {
    _child: Guard,
    url: String,
    _data: TempDir,
}

impl Prometheus {
    pub(crate) fn start(agent: SocketAddr) -> Result<Self> {
        let data = TempDir::with_prefix("hearth-prometheus-")?;
        let config = data.path().join("prometheus.yml");
        let rules = root().join("alerts").canonicalize()?;
        let rules = rules.display();
        fs::write(
            &config,
            format!(
                "global: {{ scrape_interval: 1s, evaluation_interval: 1s }}\n\
                 rule_files: [ \"{rules}/*.yaml\" ]\n\
                 scrape_configs:\n\
                 - job_name: hearth\n  \
                   static_configs: [ {{ targets: [ \"{agent}\" ] }} ]\n"
            ),
        )?;
        let mut child = Command::new(program("prometheus")?)
            .arg(format!("--config.file={}", config.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                data.path().join("tsdb").display()
            ))
            .arg("--web.listen-address=127.0.0.1:0")
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .context("run prometheus")?;
        let mut log = BufReader::new(child.stderr.take().context("stderr is piped")?);
        let mut prometheus = Self {
            _child: Guard(child),
            url: String::new(),
            _data: data,
        };
        let mut seen = String::new();
        loop {
            let begin = seen.len();
            if log.read_line(&mut seen)? == 0 {
                bail!("prometheus ended: {seen}");
            }
            let line = &seen[begin..];
            if let Some((_, address)) = line.split_once("\"Listening on\" address=") {
                prometheus.url = format!("http://{}", address.trim());
            }
            // The last step: until then it answers nothing.
            if line.contains("Server is ready to receive web requests") {
                break;
            }
        }
        ensure!(
            !prometheus.url.is_empty(),
            "prometheus did not say where it listens: {seen}"
        );
        // A full pipe would stop it.
        std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        Ok(prometheus)
    }

    /// The answer in Prometheus' JSON: a list of samples.
    pub(crate) fn query(&self, promql: &str) -> Result<Value> {
        let arguments = ["query", "instant", "--format=json", &self.url, promql];
        let answer = promtool(arguments.map(OsStr::new)).with_context(|| promql.to_owned())?;
        Ok(serde_json::from_str(&answer)?)
    }

    /// Whether at least one sample is a number.
    pub(crate) fn answers(&self, promql: &str) -> Result<bool> {
        let answer = self.query(promql)?;
        let samples = answer.as_array().context("an instant query gives a list")?;
        Ok(samples.iter().any(|sample| {
            let value = sample["value"][1]
                .as_str()
                .and_then(|text| text.parse::<f64>().ok());
            value.is_some_and(f64::is_finite)
        }))
    }
}
