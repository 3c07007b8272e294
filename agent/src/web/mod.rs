//! The page and the metrics endpoint on loopback.

mod page;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse};
use axum::routing::get;
use tokio::net::TcpListener;

use crate::export::Telling;

/// Serves what was told, until the runtime ends.
pub async fn serve(listener: TcpListener, telling: Telling) {
    let router = Router::new()
        .route("/", get(page))
        .route("/starts.json", get(starts))
        .route("/metrics", get(metrics))
        .route("/healthz", get(async || "ok\n"))
        .with_state(telling);
    if let Err(error) = axum::serve(listener, router).await {
        tracing::error!("metrics are no longer served: {error}");
    }
}

async fn metrics(State(telling): State<Telling>) -> impl IntoResponse {
    match telling.metrics() {
        Ok(text) => {
            let kind = "text/plain; version=0.0.4; charset=utf-8";
            ([(header::CONTENT_TYPE, kind)], text).into_response()
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

async fn starts(State(telling): State<Telling>) -> impl IntoResponse {
    let mut json = String::from("[");
    for (index, told) in telling.history().iter().enumerate() {
        json.push_str(if index == 0 { "\n" } else { ",\n" });
        json.push_str(&told.json);
    }
    json.push_str("\n]\n");
    ([(header::CONTENT_TYPE, "application/json")], json)
}

async fn page(State(telling): State<Telling>) -> impl IntoResponse {
    // Nothing but its own styles: names on it come from whoever starts programs.
    let policy = "default-src 'none'; style-src 'unsafe-inline'";
    let pools = telling.pools().clone();
    let html = Html(page::html(&pools, telling.history().iter()));
    ([(header::CONTENT_SECURITY_POLICY, policy)], html)
}
