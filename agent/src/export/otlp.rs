//! One collector: records and metrics in, an answer out.

mod metrics;

use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::logs::{AnyValue, LogRecord as _, Logger as _, LoggerProvider as _, Severity};
use opentelemetry::trace::{
    Link, SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState,
};
use opentelemetry::{Array, InstrumentationScope, Key, KeyValue, StringValue};
use opentelemetry_otlp::tonic_types::metadata::MetadataMap;
use opentelemetry_otlp::tonic_types::transport::ClientTlsConfig;
use opentelemetry_otlp::{
    Compression as OtlpCompression, ExporterBuildError, LogExporter, RetryPolicy, SpanExporter,
    WithExportConfig as _, WithHttpConfig as _, WithTonicConfig as _,
};
use opentelemetry_proto::tonic::metrics::v1::Metric;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkError;
use opentelemetry_sdk::logs::{
    LogBatch, LogExporter as _, SdkLogRecord, SdkLogger, SdkLoggerProvider,
};
use opentelemetry_sdk::metrics::data::ResourceMetrics;
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanExporter as _, SpanLinks};
use thiserror::Error;

use self::metrics::Metrics;
use super::headers::{self, HeadersError};
use super::record::{
    Attribute, EVENT_COLD_START, EVENT_HEAL, EVENT_LOCK_WAIT, EVENT_OOM, Log, Record, Span, Value,
};
use crate::config::{Compression, Endpoint, Otlp, Protocol};

/// A collector that cannot be talked to as configured.
#[derive(Debug, Error)]
pub enum ConnectError {
    /// A header is none.
    #[error(transparent)]
    Headers(#[from] HeadersError),
    /// The exporter refuses its settings.
    #[error("cannot talk to the collector {endpoint}: {source}")]
    Build {
        /// The collector.
        endpoint: Endpoint,
        /// Why.
        source: ExporterBuildError,
    },
    /// The metrics' own way there cannot be had.
    #[error("cannot send metrics to the collector {endpoint}: {reason}")]
    Metrics {
        /// The collector.
        endpoint: Endpoint,
        /// Why.
        reason: String,
    },
}

/// What a collector answered instead of thanks.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum SendError {
    /// It is away, overloaded, or on its way up: the same may be sent again.
    #[error("{0}")]
    Away(String),
    /// It will never take this.
    #[error("{0}")]
    Refused(String),
}

/// A collector, which is only connected to when there is something to send.
#[derive(Debug)]
pub struct Collector {
    spans: SpanExporter,
    logs: LogExporter,
    metrics: Metrics,
    // The SDK lets only a logger make log records.
    logger: SdkLogger,
    scope: InstrumentationScope,
}

impl Collector {
    /// A collector at `endpoint`. Needs a tokio runtime.
    pub fn new(
        endpoint: &Endpoint,
        otlp: &Otlp,
        resource: &Resource,
    ) -> Result<Self, ConnectError> {
        let headers = headers::all(otlp)?;
        let failed = |source| ConnectError::Build {
            endpoint: endpoint.clone(),
            source,
        };
        // Patience beyond one request is the spool's, and it is longer than the SDK's.
        let retry = RetryPolicy::disabled;
        let timeout = otlp.timeout.0;
        // Sets of the same builder for two signals, which share no trait to build by.
        macro_rules! build {
            ($exporter:ident, $path:literal) => {
                match otlp.protocol {
                    Protocol::Grpc => {
                        let mut builder = $exporter::builder()
                            .with_tonic()
                            .with_endpoint(endpoint.as_str())
                            .with_timeout(timeout)
                            .with_retry_policy(retry())
                            .with_metadata(metadata(&headers));
                        if endpoint.as_str().starts_with("https:") {
                            let tls = ClientTlsConfig::new().with_enabled_roots();
                            builder = builder.with_tls_config(tls);
                        }
                        if otlp.compression == Compression::Gzip {
                            builder = builder.with_compression(OtlpCompression::Gzip);
                        }
                        builder.build()
                    }
                    Protocol::Http => {
                        install_tls_provider();
                        let mut builder = $exporter::builder()
                            .with_http()
                            .with_endpoint(format!("{endpoint}{}", $path))
                            .with_timeout(timeout)
                            .with_retry_policy(retry())
                            .with_headers(encoded(&headers));
                        if otlp.compression == Compression::Gzip {
                            builder = builder.with_compression(OtlpCompression::Gzip);
                        }
                        builder.build()
                    }
                }
                .map_err(failed)?
            };
        }
        let mut spans = build!(SpanExporter, "/v1/traces");
        let mut logs = build!(LogExporter, "/v1/logs");
        let metrics =
            Metrics::new(endpoint, otlp, &headers).map_err(|reason| ConnectError::Metrics {
                endpoint: endpoint.clone(),
                reason,
            })?;
        spans.set_resource(resource);
        logs.set_resource(resource);
        let logger = SdkLoggerProvider::builder().build().logger("hearth");
        Ok(Self {
            spans,
            logs,
            metrics,
            logger,
            scope: scope(),
        })
    }

    /// Sends the traces of `records`.
    pub async fn send_spans(&self, records: &[Record]) -> Result<(), SendError> {
        let spans = records.iter().flat_map(|record| {
            record
                .spans
                .iter()
                .map(|span| span_data(span, record.trace_id, &self.scope))
        });
        answer(self.spans.export(spans.collect()).await)
    }

    /// Sends the log records of `records`.
    pub async fn send_logs(&self, records: &[Record]) -> Result<(), SendError> {
        let logs = records
            .iter()
            .map(|record| self.log_record(&record.log, record.trace_id))
            .collect::<Vec<_>>();
        let batch = logs
            .iter()
            .map(|log| (log, &self.scope))
            .collect::<Vec<_>>();
        answer(self.logs.export(LogBatch::new(&batch)).await)
    }

    /// Sends the SDK's metrics, and `more` beside them.
    pub async fn send_metrics(
        &self,
        metrics: &ResourceMetrics,
        more: Vec<Metric>,
    ) -> Result<(), SendError> {
        self.metrics.send(metrics, more).await
    }

    fn log_record(&self, log: &Log, trace_id: u128) -> SdkLogRecord {
        let mut record = self.logger.create_log_record();
        let (number, text) = if log.warning {
            (Severity::Warn, "WARN")
        } else {
            (Severity::Info, "INFO")
        };
        // The SDK keeps no name that was made at run time.
        record.set_event_name(event_name(&log.event));
        record.set_timestamp(time(log.unix_ns));
        record.set_observed_timestamp(SystemTime::now());
        record.set_severity_number(number);
        record.set_severity_text(text);
        record.set_body(log.body.clone().into());
        if trace_id != 0 {
            record.set_trace_context(
                TraceId::from_bytes(trace_id.to_be_bytes()),
                SpanId::from_bytes(log.span.to_be_bytes()),
                Some(TraceFlags::SAMPLED),
            );
        }
        record.add_attributes(log.attributes.iter().map(|(name, value)| {
            let value = match value {
                Value::Bool(value) => AnyValue::from(*value),
                Value::I64(value) => AnyValue::from(*value),
                Value::F64(value) => AnyValue::from(*value),
                Value::Text(value) => AnyValue::from(value.clone()),
                Value::List(list) => list
                    .iter()
                    .map(|text| AnyValue::from(text.clone()))
                    .collect(),
            };
            (key(name), value)
        }));
        record
    }
}

/// The SDK's records hold names that live as long as the program: those that hearth tells.
fn event_name(event: &str) -> &'static str {
    let known = [EVENT_COLD_START, EVENT_HEAL, EVENT_LOCK_WAIT, EVENT_OOM];
    known
        .into_iter()
        .find(|known| *known == event)
        .unwrap_or_default()
}

/// Scope of everything that is told.
pub(super) fn scope() -> InstrumentationScope {
    InstrumentationScope::builder("hearth")
        .with_version(env!("CARGO_PKG_VERSION"))
        .build()
}

/// Headers for the HTTP builder, which takes what stands in them as percent-encoded.
fn encoded(headers: &HashMap<String, String>) -> HashMap<String, String> {
    headers
        .iter()
        .map(|(name, value)| (name.clone(), value.replace('%', "%25")))
        .collect()
}

/// Gives rustls its cryptography. A second time is of no effect.
fn install_tls_provider() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}

fn metadata(headers: &HashMap<String, String>) -> MetadataMap {
    MetadataMap::from_headers(header_map(headers))
}

fn header_map(headers: &HashMap<String, String>) -> HeaderMap {
    // `headers::all` has checked that each is one.
    let headers = headers.iter().filter_map(|(name, value)| {
        Some((
            name.parse::<HeaderName>().ok()?,
            value.parse::<HeaderValue>().ok()?,
        ))
    });
    headers.collect()
}

fn time(unix_ns: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_nanos(unix_ns)
}

fn key(name: &str) -> Key {
    Key::from(name.to_owned())
}

fn key_value((name, value): &Attribute) -> KeyValue {
    KeyValue::new(
        key(name),
        match value {
            Value::Bool(value) => opentelemetry::Value::Bool(*value),
            Value::I64(value) => opentelemetry::Value::I64(*value),
            Value::F64(value) => opentelemetry::Value::F64(*value),
            Value::Text(value) => opentelemetry::Value::String(value.clone().into()),
            Value::List(value) => opentelemetry::Value::Array(Array::String(
                value.iter().cloned().map(StringValue::from).collect(),
            )),
        },
    )
}

fn context(trace_id: u128, span_id: u64) -> SpanContext {
    SpanContext::new(
        TraceId::from_bytes(trace_id.to_be_bytes()),
        SpanId::from_bytes(span_id.to_be_bytes()),
        TraceFlags::SAMPLED,
        false,
        TraceState::NONE,
    )
}

fn links(span: &Span) -> SpanLinks {
    let links = span.links.iter().map(|link| {
        let attributes = link.attributes.iter().map(key_value).collect();
        Link::new(context(link.trace_id, link.span_id), attributes, 0)
    });
    let mut all = SpanLinks::default();
    all.links = links.collect();
    all
}

fn span_data(span: &Span, trace_id: u128, scope: &InstrumentationScope) -> SpanData {
    SpanData {
        span_context: context(trace_id, span.id),
        parent_span_id: SpanId::from_bytes(span.parent.to_be_bytes()),
        parent_span_is_remote: false,
        span_kind: SpanKind::Internal,
        name: span.name.clone().into(),
        start_time: time(span.begin_unix_ns),
        end_time: time(span.end_unix_ns),
        attributes: span.attributes.iter().map(key_value).collect(),
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links: links(span),
        status: span.error.clone().map_or(Status::Unset, Status::error),
        instrumentation_scope: scope.clone(),
    }
}

/// Sorts an answer by whether the same may be sent again.
fn answer(result: Result<(), OTelSdkError>) -> Result<(), SendError> {
    let message = match result {
        Ok(()) => return Ok(()),
        Err(OTelSdkError::InternalFailure(message)) => message,
        Err(error) => error.to_string(),
    };
    Err(if is_refusal(&message) {
        SendError::Refused(message)
    } else {
        SendError::Away(message)
    })
}

/// Whether `message` tells of an answer that the OTLP specification calls final.
///
/// The SDK hands out no code but in its message. A wording that is not known counts as an
/// absence: nothing is given up by mistake, and the spool's bound holds in any case.
fn is_refusal(message: &str) -> bool {
    if let Some((_, status)) = message.rsplit_once("HTTP export failed with status code: ") {
        let digits = status
            .chars()
            .take_while(char::is_ascii_digit)
            .collect::<String>();
        return !matches!(
            digits.as_str(),
            "" | "408" | "429" | "500" | "502" | "503" | "504"
        );
    }
    if let Some((_, code)) = message.split_once("export failed with gRPC code: ") {
        let code = code.split(':').next().unwrap_or_default().trim();
        return matches!(
            code,
            "InvalidArgument"
                | "NotFound"
                | "AlreadyExists"
                | "PermissionDenied"
                | "FailedPrecondition"
                | "Unimplemented"
                | "Unauthenticated"
        );
    }
    message.starts_with("OTLP HTTP ") && message.contains("request body is")
}
