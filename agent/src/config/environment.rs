//! The `OTEL_*` variables, where the file is silent.

use std::collections::BTreeMap;

use super::error::ConfigError;
use super::otlp::{Endpoint, Otlp, Protocol, Secret};

const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
const PROTOCOL: &str = "OTEL_EXPORTER_OTLP_PROTOCOL";
const HEADERS: &str = "OTEL_EXPORTER_OTLP_HEADERS";

/// Fills in what `said` (the file's `[otlp]` table) does not say, from `variable`.
pub(super) fn apply(
    otlp: &mut Otlp,
    said: &toml::Table,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<(), ConfigError> {
    let wrong = |variable, value: &str, remedy: String| ConfigError::Environment {
        variable,
        value: value.to_owned(),
        remedy,
    };
    let silent = |key: &str, name: &str| {
        if said.contains_key(key) {
            None
        } else {
            variable(name).filter(|value| !value.is_empty())
        }
    };
    if let Some(value) = silent("endpoint", ENDPOINT) {
        let endpoint = Endpoint::try_from(value.clone());
        otlp.endpoint = Some(endpoint.map_err(|e| wrong(ENDPOINT, &value, e.to_string()))?);
    }
    if let Some(value) = silent("protocol", PROTOCOL) {
        otlp.protocol = match value.as_str() {
            "grpc" => Protocol::Grpc,
            "http/protobuf" => Protocol::Http,
            _ => {
                let remedy = "write `grpc` or `http/protobuf`".to_owned();
                return Err(wrong(PROTOCOL, &value, remedy));
            }
        };
    }
    if let Some(value) = silent("headers", HEADERS) {
        otlp.headers = value
            .split(',')
            .filter(|pair| !pair.trim().is_empty())
            .map(|pair| pair.split_once('='))
            .map(|pair| pair.map(|(k, v)| (k.trim().to_owned(), Secret::new(v.trim().to_owned()))))
            .collect::<Option<BTreeMap<_, _>>>()
            // The value may hold a secret, so that the message does not.
            .ok_or_else(|| wrong(HEADERS, "********", "write `name=value,name=value`".into()))?;
    }
    Ok(())
}
