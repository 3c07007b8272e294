//! `[otlp]`: where observations are sent, and what waits while they cannot be.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize, Serializer};
use thiserror::Error;

use super::units::{Period, Size};

/// Where and how to send.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Otlp {
    /// The collector; nothing is sent while unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<Endpoint>,
    /// How.
    pub protocol: Protocol,
    /// Headers of each request.
    pub headers: BTreeMap<String, Secret>,
    /// A file of more headers, one `Name: value` a line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub headers_file: Option<PathBuf>,
    /// Patience with one request.
    pub timeout: Period,
    /// Compression of requests.
    pub compression: Compression,
    /// How often metrics are sent.
    pub interval: Period,
    /// What is sent.
    pub signals: Vec<Signal>,
    /// What waits.
    pub spool: Spool,
}

impl Default for Otlp {
    fn default() -> Self {
        Self {
            endpoint: None,
            protocol: Protocol::Grpc,
            headers: BTreeMap::new(),
            headers_file: None,
            timeout: Period(Duration::from_secs(10)),
            compression: Compression::None,
            interval: Period(Duration::from_secs(10)),
            signals: vec![Signal::Traces, Signal::Metrics, Signal::Logs],
            spool: Spool::default(),
        }
    }
}

/// `[otlp.spool]`: bounds of what waits for a collector that is away.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Spool {
    /// Bytes in memory.
    pub memory: Size,
    /// Directory for what does not fit into memory; none while unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dir: Option<PathBuf>,
    /// Bytes on disk.
    pub disk: Size,
}

impl Default for Spool {
    fn default() -> Self {
        Self {
            memory: Size(2 << 20),
            dir: None,
            disk: Size(64 << 20),
        }
    }
}

/// OTLP's two transports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// gRPC.
    Grpc,
    /// Protobuf over HTTP.
    Http,
}

/// Compression of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// None.
    None,
    /// gzip.
    Gzip,
}

/// One of OTLP's signals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Signal {
    /// One trace a start.
    Traces,
    /// Histograms, counters, and the agent's own state.
    Metrics,
    /// One record a start.
    Logs,
}

impl Signal {
    /// The word used in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Traces => "traces",
            Self::Metrics => "metrics",
            Self::Logs => "logs",
        }
    }
}

/// URL of a collector: scheme, host, and port, with a path in front of `/v1/...` for HTTP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Endpoint(String);

/// A URL that names no collector.
#[derive(Debug, Error)]
#[error(
    "\"{0}\" is not the URL of a collector; write scheme, host and port: \
     \"http://127.0.0.1:4317\" (gRPC) or \"http://127.0.0.1:4318\" (HTTP)"
)]
pub struct NotAnEndpoint(String);

impl Endpoint {
    /// The URL without a slash at its end.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for Endpoint {
    type Error = NotAnEndpoint;

    fn try_from(text: String) -> Result<Self, NotAnEndpoint> {
        let uri = text.parse::<axum::http::Uri>().ok();
        let whole = uri.is_some_and(|uri| {
            matches!(uri.scheme_str(), Some("http" | "https"))
                && uri.host().is_some_and(|host| !host.is_empty())
                && uri.query().is_none()
        });
        if whole {
            Ok(Self(text.trim_end_matches('/').to_owned()))
        } else {
            Err(NotAnEndpoint(text))
        }
    }
}

impl From<Endpoint> for String {
    fn from(endpoint: Endpoint) -> Self {
        endpoint.0
    }
}

/// A value that is never shown: not in logs, not by `hearth config show`.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Keeps `value` from being shown.
    #[must_use]
    pub const fn new(value: String) -> Self {
        Self(value)
    }

    /// The value, for the one who sends it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("********")
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str("********")
    }
}
