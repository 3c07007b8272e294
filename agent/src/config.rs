//! The configuration: `hearth.toml`, its defaults and its checks.

mod environment;
mod error;
mod functions;
mod heal;
mod oom;
mod otlp;
mod recorder;
mod rule;
mod snapshots;
mod units;

use std::collections::BTreeSet;
use std::io::Read as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::kernel::table;
use crate::observe::cold_start::{ReadyRule, VMMS};
pub use error::{ConfigError, Fault};
pub use functions::Functions;
pub use heal::Heal;
pub use oom::Oom;
pub use otlp::{Compression, Endpoint, Otlp, Protocol, Secret, Signal, Spool};
pub use recorder::Recorder;
pub use rule::{Runtime, StartRule};
pub use snapshots::Snapshots;
pub use units::{Period, Share, Size};

/// Where the configuration is looked for when none is named.
pub const DEFAULT_PATH: &str = "/etc/hearth/hearth.toml";

/// Every setting with its default, commented: what `hearth config show` prints.
pub const DEFAULTS: &str = include_str!("../../deploy/hearth.toml");

/// The settings of the agent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// What is watched.
    pub signals: BTreeSet<table::Signal>,
    /// What opens starts.
    pub mode: Mode,
    /// OCI runtimes and VMMs, whose exec opens a start.
    pub runtimes: Vec<Runtime>,
    /// Whether a unit's or container's cgroup opens a start when its first process enters.
    pub cgroups: bool,
    /// What makes a start ready.
    pub ready: ReadyRule,
    /// When a start that did not become ready is given up.
    pub deadline: Period,
    /// Largest share of the time in which the watch set may be attached for the daemon.
    pub watch_share: Share,
    /// `[identity]`.
    pub identity: Identity,
    /// `[otlp]`.
    pub otlp: Otlp,
    /// `[metrics]`.
    pub metrics: Metrics,
    /// `[oom]`.
    pub oom: Oom,
    /// `[print]`.
    pub print: Print,
    /// `[functions]`.
    pub functions: Functions,
    /// `[heal]`.
    pub heal: Heal,
    /// `[snapshots]`.
    pub snapshots: Snapshots,
    /// `[[start]]`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub start: Vec<StartRule>,
}

impl Default for Config {
    fn default() -> Self {
        let runtimes = ["runc", "crun", "youki", "runsc", "kata-runtime"].into_iter();
        let runtimes = runtimes.chain(VMMS).map(str::to_owned);
        Self {
            signals: table::Signal::ALL.into_iter().collect(),
            mode: Mode::Process,
            runtimes: runtimes
                .filter_map(|name| Runtime::try_from(name).ok())
                .collect(),
            cgroups: true,
            ready: ReadyRule::default(),
            deadline: Period(Duration::from_mins(5)),
            watch_share: Share(0.05),
            identity: Identity::default(),
            otlp: Otlp::default(),
            metrics: Metrics::default(),
            oom: Oom::default(),
            print: Print::default(),
            functions: Functions::default(),
            heal: Heal::default(),
            snapshots: Snapshots::default(),
            start: Vec::new(),
        }
    }
}

/// What opens starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Every exec, beside what `sandbox` names.
    Process,
    /// Runtimes, cgroups of units and containers, and `[[start]]` rules.
    Sandbox,
}

/// `[identity]`: how starts get their function's name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Identity {
    /// Label or annotation of a container that names its function.
    pub function_label: String,
    /// Socket of the container runtime that is asked for pods; asked nothing while unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cri_socket: Option<PathBuf>,
}

impl Default for Identity {
    fn default() -> Self {
        Self {
            function_label: "hearth.function".to_owned(),
            cri_socket: None,
        }
    }
}

/// `[metrics]`: the endpoint for Prometheus, and its page.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Metrics {
    /// Where it listens.
    pub listen: Listen,
    /// Distinct function names; the rest are told as `~other`.
    pub max_functions: usize,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            listen: Listen::At(SocketAddr::from((Ipv4Addr::LOCALHOST, 9464))),
            max_functions: 100,
        }
    }
}

/// An address to listen at, or `"off"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listen {
    /// Nowhere.
    Off,
    /// Here.
    At(SocketAddr),
}

impl<'de> Deserialize<'de> for Listen {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        if text == "off" {
            return Ok(Self::Off);
        }
        text.parse().map(Self::At).map_err(|_| {
            let remedy = "write an address with its port, such as \"127.0.0.1:9464\", or \"off\"";
            D::Error::custom(format!(
                "\"{text}\" is not an address to listen at; {remedy}"
            ))
        })
    }
}

impl Serialize for Listen {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Off => to.serialize_str("off"),
            Self::At(address) => to.collect_str(address),
        }
    }
}

/// `[print]`: what `hearth run` prints of each start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Print {
    /// How.
    pub format: PrintFormat,
}

/// How starts are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PrintFormat {
    /// A line for people.
    #[default]
    Line,
    /// One JSON object a line.
    Json,
    /// Not at all.
    Off,
}

impl Config {
    /// Loads `named`, else the file at [`DEFAULT_PATH`] if there is one, else the defaults;
    /// the `OTEL_*` variables count where the file is silent.
    pub fn load(named: Option<&Path>) -> Result<Self, ConfigError> {
        let at_default = Path::new(DEFAULT_PATH);
        let path = named.or_else(|| at_default.exists().then_some(at_default));
        let text = path.map(read).transpose()?.unwrap_or_default();
        Self::parse(&text, path.unwrap_or(at_default), |name| {
            std::env::var(name).ok()
        })
    }

    /// Reads a configuration from `text`, which is the content of `path`.
    pub fn parse(
        text: &str,
        path: &Path,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, ConfigError> {
        let fault = |key: String, error: &toml::de::Error| {
            ConfigError::Invalid(Box::new(Fault::new(path.into(), text, key, error)))
        };
        let document =
            toml::Deserializer::parse(text).map_err(|error| fault(String::new(), &error))?;
        let mut config: Self = serde_path_to_error::deserialize(document)
            .map_err(|error| fault(error.path().to_string(), error.inner()))?;
        let said = toml::from_str::<toml::Table>(text).unwrap_or_default();
        let said = said
            .get("otlp")
            .and_then(toml::Value::as_table)
            .cloned()
            .unwrap_or_default();
        environment::apply(&mut config.otlp, &said, variable)?;
        Ok(config)
    }
}

/// Reads a file that nobody but its owner can write, who is root or ourselves.
fn read(path: &Path) -> Result<String, ConfigError> {
    let failed = |source| ConfigError::Read {
        path: path.into(),
        source,
    };
    // The same open file is checked and read: nobody can swap it in between.
    let mut file = std::fs::File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err(ConfigError::NoFile(path.into()));
    }
    if metadata.mode() & 0o022 != 0 {
        return Err(ConfigError::Writable {
            path: path.into(),
            mode: metadata.mode() & 0o7777,
        });
    }
    if metadata.uid() != 0 && metadata.uid() != rustix::process::geteuid().as_raw() {
        return Err(ConfigError::Owner {
            path: path.into(),
            owner: metadata.uid(),
        });
    }
    let mut text = String::new();
    file.read_to_string(&mut text).map_err(failed)?;
    Ok(text)
}

#[cfg(test)]
mod tests;
