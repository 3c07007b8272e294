//! What the pools are told and what they decide, as it happens.

use std::time::Duration;

use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use hearth_runtime::pool::simulate::recorded::{Head, Record};
use serde::Deserialize;
use tokio::time::{Instant, timeout_at};
use utoipa::IntoParams;

use super::Api;
use super::problem::{ProblemDocument, Refusal};
use crate::functions::{Kind, Problem, Recording};

/// The longest recording.
pub const LONGEST: Duration = Duration::from_hours(24);

/// How much is recorded.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct RecordingQuery {
    /// For so many seconds, 1 to 86400.
    #[param(minimum = 1, maximum = 86_400)]
    seconds: u64,
}

/// What is written next.
enum Next {
    Head,
    Records,
}

/// Records what the pools of this node are told, and what they want done: one JSON object a line, the
/// first of which says what it is. `hearth simulate --trace` reads it. It begins with what there is;
/// where that is nothing, the same inputs give the same decisions again. Where whoever reads is too
/// slow the connection is broken off: what came until then is whole.
#[utoipa::path(get, path = "/v1/recording", tag = "sandboxes",
    params(RecordingQuery),
    responses(
        (status = 200, description = "What they are told.", body = serde_json::Value,
            content_type = "application/x-ndjson"),
        (status = "default", description = "A problem.", body = ProblemDocument,
            content_type = "application/problem+json"),
    ))]
pub async fn record(
    State(api): State<Api>,
    query: Result<Query<RecordingQuery>, axum::extract::rejection::QueryRejection>,
) -> Result<Response, Refusal> {
    let remedy = "use ?seconds=NUMBER, 1 to 86400";
    let Query(query) =
        query.map_err(|error| Problem::new(Kind::Invalid, error.body_text(), remedy))?;
    let time = Duration::from_secs(query.seconds);
    if time.is_zero() || time > LONGEST {
        let problem = Problem::field("seconds", query.seconds, "no length of a recording", remedy);
        return Err(problem.into());
    }
    let end = Instant::now() + time;
    let recording = api.manager.record()?;
    let lines = stream::unfold((recording, Next::Head), move |(recording, next)| {
        written(recording, next, end)
    });
    let kind = [(header::CONTENT_TYPE, "application/x-ndjson")];
    Ok((kind, Body::from_stream(lines)).into_response())
}

/// The next line; an error where it breaks off.
async fn written(
    mut recording: Recording,
    next: Next,
    end: Instant,
) -> Option<(Result<String, &'static str>, (Recording, Next))> {
    let line = match next {
        Next::Head => line(&Head::default()),
        Next::Records => match timeout_at(end, recording.next()).await {
            Ok(Some(record)) => line::<Record>(&record),
            Ok(None) => Err("the pools are faster than who reads"),
            Err(_) => return None,
        },
    };
    Some((line, (recording, Next::Records)))
}

fn line<T: serde::Serialize>(record: &T) -> Result<String, &'static str> {
    let json = serde_json::to_string(record).map_err(|_| "it cannot be written")?;
    Ok(json + "\n")
}
