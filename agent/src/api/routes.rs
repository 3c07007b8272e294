//! Functions, what they wrote, and their sandboxes.

use axum::Json;
use axum::body::{Body, to_bytes};
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use hearth_runtime::id::FunctionName;
use serde::Deserialize;
use utoipa::IntoParams;

use super::Api;
use super::problem::{ProblemDocument, Refusal};
use crate::functions::logs::Piece;
use crate::functions::store::Deployed;
use crate::functions::view::{FunctionView, SandboxView};
use crate::functions::{Definition, Kind, Problem};

/// Bytes of a definition.
const MAX_DEFINITION: usize = 256 << 10;

/// The name in a path.
pub(super) fn named(text: &str) -> Result<FunctionName, Problem> {
    text.parse().map_err(|error: hearth_runtime::id::IdError| {
        Problem::field("name", text, error.to_string(), "")
    })
}

/// All functions, by name.
#[utoipa::path(get, path = "/v1/functions", tag = "functions",
    responses((status = 200, description = "The functions.", body = Vec<FunctionView>)))]
pub async fn list(State(api): State<Api>) -> Json<Vec<FunctionView>> {
    Json(api.manager.list())
}

/// One function: the version that is in use, and what it does.
#[utoipa::path(get, path = "/v1/functions/{name}", tag = "functions",
    params(("name" = String, Path, description = "Its name.")),
    responses(
        (status = 200, description = "The function.", body = FunctionView),
        (status = "default", description = "A problem.", body = ProblemDocument,
            content_type = "application/problem+json"),
    ))]
pub async fn show(
    State(api): State<Api>,
    Path(name): Path<String>,
) -> Result<Json<FunctionView>, Refusal> {
    Ok(Json(api.manager.show(&named(&name)?)?))
}

/// Deploys a function, or another version of it. Its layers are copied, which may take a while.
/// The same once more, with the same content of its layers, changes nothing.
#[utoipa::path(put, path = "/v1/functions/{name}", tag = "functions",
    params(("name" = String, Path, description =
        "1 to 63 lowercase letters, digits and hyphens.")),
    request_body = Definition,
    responses(
        (status = 200, description = "It is deployed.", body = Deployed),
        (status = "default", description = "A problem.", body = ProblemDocument,
            content_type = "application/problem+json"),
    ))]
pub async fn deploy(
    State(api): State<Api>,
    Path(name): Path<String>,
    body: Body,
) -> Result<Json<Deployed>, Refusal> {
    let name = named(&name)?;
    let bytes = to_bytes(body, MAX_DEFINITION).await.map_err(|error| {
        let detail = format!("the definition cannot be read: {error}");
        Problem::new(Kind::Invalid, detail, "send at most 256 KiB of JSON")
    })?;
    let mut json = serde_json::Deserializer::from_slice(&bytes);
    let definition: Definition =
        serde_path_to_error::deserialize(&mut json).map_err(|error| Problem {
            field: Some(error.path().to_string()),
            ..Problem::new(Kind::Invalid, error.inner().to_string(), "")
        })?;
    let deployed = api.manager.deploy(name, definition).await?;
    Ok(Json(Deployed::clone(&deployed)))
}

/// Removes a function with its versions, layers and sandboxes. What it is at work on is cancelled.
#[utoipa::path(delete, path = "/v1/functions/{name}", tag = "functions",
    params(("name" = String, Path, description = "Its name.")),
    responses(
        (status = 204, description = "It is gone."),
        (status = "default", description = "A problem.", body = ProblemDocument,
            content_type = "application/problem+json"),
    ))]
pub async fn remove(
    State(api): State<Api>,
    Path(name): Path<String>,
) -> Result<StatusCode, Refusal> {
    api.manager.remove(&named(&name)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// What of the logs is wanted.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct LogQuery {
    /// Only what came after the piece of this number.
    after: u64,
    /// Whether to go on with what is written from now on.
    follow: bool,
}

/// What a function wrote lately, oldest first: one JSON object a line. The last MiB is kept, while
/// the agent runs.
#[utoipa::path(get, path = "/v1/functions/{name}/logs", tag = "functions",
    params(("name" = String, Path, description = "Its name."), LogQuery),
    responses(
        (status = 200, description = "What it wrote.", body = Piece,
            content_type = "application/x-ndjson"),
        (status = "default", description = "A problem.", body = ProblemDocument,
            content_type = "application/problem+json"),
    ))]
pub async fn logs(
    State(api): State<Api>,
    Path(name): Path<String>,
    query: Result<Query<LogQuery>, axum::extract::rejection::QueryRejection>,
) -> Result<Response, Refusal> {
    let Query(query) = query.map_err(|error| {
        Problem::new(
            Kind::Invalid,
            error.body_text(),
            "use ?after=NUMBER&follow=true",
        )
    })?;
    let reader = api.manager.logs(&named(&name)?)?;
    let lines = stream::unfold(
        (reader, query.after),
        move |(mut reader, after)| async move {
            let pieces = reader.after(after, query.follow).await;
            let last = pieces.last()?.number;
            let mut text = String::new();
            for piece in &pieces {
                text.push_str(&serde_json::to_string(piece).unwrap_or_default());
                text.push('\n');
            }
            Some((Ok::<_, std::convert::Infallible>(text), (reader, last)))
        },
    );
    let kind = [(header::CONTENT_TYPE, "application/x-ndjson")];
    Ok((kind, Body::from_stream(lines)).into_response())
}

/// All sandboxes of functions, by id.
#[utoipa::path(get, path = "/v1/sandboxes", tag = "sandboxes",
    responses((status = 200, description = "The sandboxes.", body = Vec<SandboxView>)))]
pub async fn sandboxes(State(api): State<Api>) -> Json<Vec<SandboxView>> {
    Json(api.manager.sandboxes())
}
