//! The HTTP API of functions, on a Unix socket: `/v1`, described by its own `OpenAPI` document.
//!
//! - [`document`]: that document; [`problem`]: errors, as RFC 9457 has them.
//! - [`routes`]: functions, logs and sandboxes; [`invocations`]: requests for functions.
//! - [`recording`]: what the pools are told and decide; [`heal`]: what was decided about faults.
//! - [`socket`]: where it is served.

pub mod document;
pub mod heal;
pub mod invocations;
pub mod problem;
pub mod recording;
#[cfg(test)]
mod reference;
pub mod routes;
pub mod socket;
#[cfg(test)]
mod tests;

use axum::Router;
use axum::http::{Method, Uri};
use axum::routing::{get, post};

use crate::functions::{Kind, Manager, Problem};
use invocations::Payloads;
use problem::Refusal;

/// What handlers have.
#[derive(Clone)]
pub struct Api {
    /// The functions.
    pub manager: Manager,
    /// Memory for payloads.
    pub payloads: Payloads,
}

/// All paths.
pub fn router(manager: Manager) -> Router {
    Router::new()
        .route("/v1/functions", get(routes::list))
        .route(
            "/v1/functions/{name}",
            get(routes::show).put(routes::deploy).delete(routes::remove),
        )
        .route("/v1/functions/{name}/logs", get(routes::logs))
        .route(
            "/v1/functions/{name}/invocations",
            post(invocations::invoke),
        )
        .route("/v1/invocations/{id}", get(invocations::outcome))
        .route(
            "/v1/invocations/{id}/cold-start",
            get(invocations::cold_start),
        )
        .route("/v1/heal", get(heal::log))
        .route("/v1/recording", get(recording::record))
        .route("/v1/sandboxes", get(routes::sandboxes))
        .route("/v1/openapi.json", get(document::serve))
        .fallback(async |uri: Uri| {
            let remedy = "GET /v1/openapi.json describes those that there are";
            let problem = Problem::new(Kind::UnknownPath, "no path of this API", remedy);
            Refusal(problem.about("path", uri.path()))
        })
        .method_not_allowed_fallback(async |method: Method| {
            let remedy = "GET /v1/openapi.json describes what it takes";
            let problem = Problem::new(Kind::Method, "the path does not take this method", remedy);
            Refusal(problem.about("method", method))
        })
        .with_state(Api {
            manager,
            payloads: Payloads::default(),
        })
}
