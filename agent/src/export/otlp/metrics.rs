//! Metrics to a collector, over the protocol itself: the SDK's exporter takes the SDK's data and
//! nothing else, and the SDK's data cannot hold a histogram that the kernel has counted.

use std::collections::HashMap;
use std::io::Write as _;
use std::time::Duration;

use axum::http::HeaderMap;
use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use flate2::write::GzEncoder;
use opentelemetry_otlp::tonic_types::metadata::MetadataMap;
use opentelemetry_otlp::tonic_types::transport::ClientTlsConfig;
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_client::MetricsServiceClient;
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use opentelemetry_proto::tonic::metrics::v1::Metric;
use opentelemetry_sdk::metrics::data::ResourceMetrics;
use prost::Message as _;
use tonic::Request;
use tonic::codec::CompressionEncoding;
use tonic::transport::{Channel, Endpoint as Target};

use super::{SendError, header_map, install_tls_provider, is_refusal, metadata};
use crate::config::{Compression, Endpoint, Otlp, Protocol};

/// Where metrics go, and how.
#[derive(Debug)]
pub(super) struct Metrics {
    way: Way,
    compression: Compression,
}

#[derive(Debug)]
enum Way {
    Grpc {
        client: MetricsServiceClient<Channel>,
        metadata: MetadataMap,
    },
    Http {
        client: reqwest::Client,
        url: String,
        headers: HeaderMap,
    },
}

impl Metrics {
    /// Connects when there is something to send. Needs a tokio runtime. The error is in words.
    pub(super) fn new(
        endpoint: &Endpoint,
        otlp: &Otlp,
        headers: &HashMap<String, String>,
    ) -> Result<Self, String> {
        let way = match otlp.protocol {
            Protocol::Grpc => Way::Grpc {
                client: grpc(endpoint, otlp).map_err(|error| error.to_string())?,
                metadata: metadata(headers),
            },
            Protocol::Http => {
                install_tls_provider();
                Way::Http {
                    client: http(otlp.timeout.0).map_err(|error| error.to_string())?,
                    url: format!("{endpoint}/v1/metrics"),
                    headers: header_map(headers),
                }
            }
        };
        Ok(Self {
            way,
            compression: otlp.compression,
        })
    }

    /// Sends the SDK's metrics, and `more` under the same scope.
    pub(super) async fn send(
        &self,
        metrics: &ResourceMetrics,
        more: Vec<Metric>,
    ) -> Result<(), SendError> {
        let mut request = ExportMetricsServiceRequest::from(metrics);
        let scopes = request
            .resource_metrics
            .iter_mut()
            .flat_map(|of| &mut of.scope_metrics);
        if let Some(scope) = scopes.last() {
            scope.metrics.extend(more);
        }
        let answer = match &self.way {
            Way::Grpc { client, metadata } => {
                let mut asked = Request::new(request);
                *asked.metadata_mut() = metadata.clone();
                let answer = client.clone().export(asked).await;
                answer
                    .map(tonic::Response::into_inner)
                    .map_err(|status| sorted(&status))?
            }
            Way::Http {
                client,
                url,
                headers,
            } => self.post(client, url, headers, &request).await?,
        };
        // As the specification has it: told, and not sent again.
        if let Some(partly) = answer
            .partial_success
            .filter(|partly| partly.rejected_data_points > 0)
        {
            tracing::warn!(
                "the collector refused {} data points: {}",
                partly.rejected_data_points,
                partly.error_message
            );
        }
        Ok(())
    }

    async fn post(
        &self,
        client: &reqwest::Client,
        url: &str,
        headers: &HeaderMap,
        request: &ExportMetricsServiceRequest,
    ) -> Result<ExportMetricsServiceResponse, SendError> {
        let away = |error: &dyn std::error::Error| SendError::Away(in_full(error));
        let mut post = client
            .post(url)
            .headers(headers.clone())
            .header(CONTENT_TYPE, "application/x-protobuf");
        let mut body = request.encode_to_vec();
        if self.compression == Compression::Gzip {
            body = gzip(&body).map_err(|error| away(&error))?;
            post = post.header(CONTENT_ENCODING, "gzip");
        }
        let answer = post.body(body).send().await.map_err(|error| away(&error))?;
        let status = answer.status();
        if !status.is_success() {
            let message = format!("HTTP export failed with status code: {}", status.as_u16());
            return Err(sorted_message(message));
        }
        let body = answer.bytes().await.map_err(|error| away(&error))?;
        // A collector may say nothing, or say it as JSON: it took everything.
        Ok(ExportMetricsServiceResponse::decode(body).unwrap_or_default())
    }
}

fn grpc(
    endpoint: &Endpoint,
    otlp: &Otlp,
) -> Result<MetricsServiceClient<Channel>, tonic::transport::Error> {
    let mut target = Target::from_shared(endpoint.as_str().to_owned())?.timeout(otlp.timeout.0);
    if endpoint.as_str().starts_with("https:") {
        target = target.tls_config(ClientTlsConfig::new().with_enabled_roots())?;
    }
    let client = MetricsServiceClient::new(target.connect_lazy());
    Ok(match otlp.compression {
        Compression::Gzip => client
            .send_compressed(CompressionEncoding::Gzip)
            .accept_compressed(CompressionEncoding::Gzip),
        Compression::None => client,
    })
}

fn http(timeout: Duration) -> reqwest::Result<reqwest::Client> {
    reqwest::Client::builder().timeout(timeout).build()
}

fn gzip(body: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(body)?;
    encoder.finish()
}

/// An answer of gRPC, in the words by which the SDK tells the other signals' answers.
fn sorted(status: &tonic::Status) -> SendError {
    sorted_message(format!(
        "export failed with gRPC code: {:?}: {}",
        status.code(),
        status.message()
    ))
}

fn sorted_message(message: String) -> SendError {
    if is_refusal(&message) {
        SendError::Refused(message)
    } else {
        SendError::Away(message)
    }
}

/// An error with what caused it: of a request, the cause alone says what is wrong.
fn in_full(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
