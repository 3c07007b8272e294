//! A collector that someone else wrote (rotel), and what it got.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;

use crate::child::Guard;
use crate::daemon::free_address;
use crate::machine;

/// A span, a log record or a data point, as the collector prints it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Item {
    /// `Name: value` lines; of a data point also those of its metric.
    pub fields: BTreeMap<String, String>,
    /// Attributes, their types left out.
    pub attributes: BTreeMap<String, String>,
    /// Attributes of the resource.
    pub resource: BTreeMap<String, String>,
}

impl Item {
    /// A field that must be there.
    pub fn field(&self, name: &str) -> Result<&str> {
        let value = self.fields.get(name);
        value
            .map(String::as_str)
            .with_context(|| format!("no {name} in {self:#?}"))
    }

    /// A field that must be a whole number.
    pub fn number(&self, name: &str) -> Result<u64> {
        let value = self.field(name)?;
        value
            .parse()
            .with_context(|| format!("{name} is {value:?}"))
    }

    /// An attribute that must be there.
    pub fn attribute(&self, name: &str) -> Result<&str> {
        let value = self.attributes.get(name);
        value
            .map(String::as_str)
            .with_context(|| format!("no {name} in {self:#?}"))
    }

    /// Whether an attribute is there and has this value.
    #[must_use]
    pub fn has(&self, name: &str, value: &str) -> bool {
        self.attributes.get(name).is_some_and(|is| is == value)
    }
}

/// Everything that a collector got.
#[derive(Clone, Debug, Default)]
pub struct Got {
    /// Spans.
    pub spans: Vec<Item>,
    /// Log records.
    pub logs: Vec<Item>,
    /// Data points, in the order in which they came.
    pub points: Vec<Item>,
}

impl Got {
    /// The last points of a metric, whose attributes have these values.
    #[must_use]
    pub fn metric(&self, name: &str, attributes: &[(&str, &str)]) -> Vec<&Item> {
        let is = |point: &&Item| {
            point.fields.get("Name").is_some_and(|is| is == name)
                && attributes
                    .iter()
                    .all(|(name, value)| point.has(name, value))
        };
        let mut last = BTreeMap::new();
        for point in self.points.iter().filter(is) {
            last.insert(&point.attributes, point);
        }
        last.into_values().collect()
    }

    fn parse(text: &str) -> Self {
        let mut got = Self::default();
        let (mut resource, mut metric) = (BTreeMap::new(), BTreeMap::new());
        // What an attribute or a field that comes next belongs to.
        let mut to = To::Nothing;
        for line in text.lines() {
            let heading = line.split(" #").next().unwrap_or_default();
            to = match heading {
                "Resource attributes:" => {
                    resource = BTreeMap::new();
                    To::Resource
                }
                "Metric" if line.starts_with("Metric #") => {
                    metric = BTreeMap::new();
                    To::Metric
                }
                "Span" | "LogRecord" | "NumberDataPoints" | "HistogramDataPoints" => {
                    let list = match heading {
                        "Span" => &mut got.spans,
                        "LogRecord" => &mut got.logs,
                        _ => &mut got.points,
                    };
                    let fields = if heading.ends_with("Points") {
                        metric.clone()
                    } else {
                        BTreeMap::new()
                    };
                    list.push(Item {
                        fields,
                        resource: resource.clone(),
                        ..Item::default()
                    });
                    match heading {
                        "Span" => To::Span,
                        "LogRecord" => To::Log,
                        _ => To::Point,
                    }
                }
                _ if line.starts_with("Scope") => To::Nothing,
                _ => to,
            };
            let item = match to {
                To::Span => got.spans.last_mut(),
                To::Log => got.logs.last_mut(),
                To::Point => got.points.last_mut(),
                _ => None,
            };
            let line = line.trim_start();
            let attribute = line.strip_prefix("-> ");
            let Some((name, value)) = attribute.unwrap_or(line).split_once(':') else {
                continue;
            };
            let (name, value) = (name.trim().to_owned(), value.trim());
            match (to, attribute, item) {
                (To::Metric, Some(_), _) => drop(metric.insert(name, value.to_owned())),
                (To::Resource, Some(_), _) => drop(resource.insert(name, untyped(value))),
                (_, Some(_), Some(item)) => drop(item.attributes.insert(name, untyped(value))),
                (_, None, Some(item)) => drop(item.fields.insert(name, value.to_owned())),
                _ => {}
            }
        }
        got
    }
}

#[derive(Clone, Copy)]
enum To {
    Nothing,
    Resource,
    Metric,
    Span,
    Log,
    Point,
}

/// `x` of `Str(x)`.
fn untyped(value: &str) -> String {
    let inner = value
        .split_once('(')
        .and_then(|(_, rest)| rest.strip_suffix(')'));
    inner.unwrap_or(value).to_owned()
}

/// A running collector; killed when dropped.
#[derive(Debug)]
pub struct Collector {
    child: Guard,
    folder: TempDir,
}

/// Where a collector listens.
#[derive(Clone, Copy, Debug)]
pub struct Addresses {
    /// For gRPC.
    pub grpc: SocketAddr,
    /// For HTTP.
    pub http: SocketAddr,
}

impl Addresses {
    /// Two that nobody listens at.
    pub fn free() -> Result<Self> {
        Ok(Self {
            grpc: free_address()?,
            http: free_address()?,
        })
    }
}

impl Collector {
    /// Starts one at `addresses`, with `more` arguments, and waits until it listens.
    pub fn start(addresses: Addresses, more: &[&str]) -> Result<Self> {
        let program = machine::target().join("tools/bin/rotel");
        ensure!(
            program.exists(),
            "{} is missing: run `cargo xtask setup`",
            program.display()
        );
        let folder = TempDir::with_prefix("hearth-collector-")?;
        let output = File::create(folder.path().join("got"))?;
        let child = Command::new(program)
            .arg("start")
            .args(["--otlp-grpc-endpoint", &addresses.grpc.to_string()])
            .args(["--otlp-http-endpoint", &addresses.http.to_string()])
            .args([
                "--exporter",
                "blackhole",
                "--debug-log-verbosity",
                "detailed",
            ])
            .args([
                "--debug-log",
                "traces",
                "--debug-log",
                "metrics",
                "--debug-log",
                "logs",
            ])
            .arg("--pid-file")
            .arg(folder.path().join("pid"))
            .args(more)
            .stdin(Stdio::null())
            .stderr(output.try_clone()?)
            .stdout(output)
            .spawn()
            .context("run the collector")?;
        let mut collector = Self {
            child: Guard(child),
            folder,
        };
        let deadline = Instant::now() + Duration::from_secs(30);
        for address in [addresses.grpc, addresses.http] {
            while TcpStream::connect(address).is_err() {
                let ended = collector.child.0.try_wait()?;
                ensure!(
                    ended.is_none(),
                    "the collector ended: {}",
                    collector.text()?
                );
                ensure!(
                    Instant::now() < deadline,
                    "the collector never listens at {address}"
                );
                thread::sleep(Duration::from_millis(20));
            }
        }
        Ok(collector)
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("got")
    }

    /// All that it printed.
    pub fn text(&self) -> Result<String> {
        fs::read_to_string(self.path()).context("read what the collector printed")
    }

    /// What it got so far.
    pub fn got(&self) -> Result<Got> {
        Ok(Got::parse(&self.text()?))
    }

    /// Waits until what it got is what `wanted` wants.
    pub fn wait_for(&self, wanted: impl Fn(&Got) -> bool) -> Result<Got> {
        let deadline = Instant::now() + Duration::from_mins(1);
        loop {
            let got = self.got()?;
            if wanted(&got) {
                return Ok(got);
            }
            if Instant::now() > deadline {
                let (spans, logs, points) = (got.spans.len(), got.logs.len(), got.points.len());
                bail!(
                    "the collector got {spans} spans, {logs} log records, {points} points, and \
                     not what was waited for; the last spans: {:#?}",
                    got.spans.iter().rev().take(3).collect::<Vec<_>>()
                );
            }
            thread::sleep(Duration::from_millis(100));
        }
    }
}
