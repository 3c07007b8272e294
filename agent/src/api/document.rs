//! The description of the API, made from its types.

use axum::Json;
use utoipa::OpenApi;
use utoipa::openapi::OpenApi as Document;

use super::{heal, invocations, recording, routes};

/// Deploy functions, invoke them, and see what they do. Served on a Unix socket, for its owner.
#[derive(Debug, OpenApi)]
#[openapi(
    info(title = "hearth", license(name = "Apache-2.0", identifier = "Apache-2.0")),
    servers((url = "http://localhost", description =
        "Over the Unix socket of functions.api_socket; the name of the host does not matter.")),
    paths(
        routes::list,
        routes::show,
        routes::deploy,
        routes::remove,
        routes::logs,
        routes::sandboxes,
        heal::log,
        recording::record,
        invocations::invoke,
        invocations::outcome,
        invocations::cold_start,
        serve,
    ),
    tags(
        (name = "functions", description = "What is deployed."),
        (name = "invocations", description = "Requests for functions."),
        (name = "sandboxes", description = "What runs them."),
        (name = "api", description = "The API itself."),
    )
)]
struct Paths;

/// The document.
#[must_use]
pub fn document() -> Document {
    Paths::openapi()
}

/// This description.
#[utoipa::path(get, path = "/v1/openapi.json", tag = "api",
    responses((status = 200, description = "An OpenAPI 3.1 document.", body = serde_json::Value)))]
pub async fn serve() -> Json<Document> {
    Json(document())
}
