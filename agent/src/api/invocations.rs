//! Requests for functions, and what became of them.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use hearth_runtime::channel::MAX_BODY;
use hearth_runtime::id::{FunctionName, RequestId};
use hearth_runtime::sandbox::backend::Outcome;
use hearth_runtime::sandbox::message::Ask;
use http_body_util::{BodyExt as _, Limited};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Api;
use super::problem::{ProblemDocument, Refusal};
use super::routes::named;
use crate::config::Period;
use crate::functions::invocation::{Invoked, Known, Step};
use crate::functions::manager::Request;
use crate::functions::{Kind, Problem};

/// A request's id: given by who asks, or told.
pub const REQUEST_ID: &str = "hearth-request-id";
/// The time that a request may take.
pub const TIMEOUT: &str = "hearth-timeout";
/// The kind of error, where the function failed.
pub const FUNCTION_ERROR: &str = "hearth-function-error";
/// The version that answered.
pub const VERSION: &str = "hearth-function-version";
/// The sandbox in which it did.
pub const SANDBOX: &str = "hearth-sandbox";
/// Where that came from.
pub const ORIGIN: &str = "hearth-sandbox-origin";

/// How long a cold start is waited for after its request.
const SEEN: Duration = Duration::from_secs(2);
/// KiB of payloads in memory at once, of all requests.
const ALL_KIB: usize = 64 << 10;

/// Bytes that are taken of a payload that nobody wants, and how long.
const MAX_DISCARDED: usize = 64 << 20;
const DISCARDING: Duration = Duration::from_secs(5);

/// Memory for payloads.
#[derive(Clone, Debug)]
pub struct Payloads(Arc<Semaphore>);

impl Default for Payloads {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(ALL_KIB)))
    }
}

impl Payloads {
    /// Room for one of so many bytes.
    fn room(&self, bytes: usize) -> Result<OwnedSemaphorePermit, Problem> {
        let kib = u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.0).try_acquire_many_owned(kib);
        room.map_err(|_| {
            let detail = "the payloads of all requests together have more than 64 MiB";
            Problem::new(Kind::Busy, detail, "try again later")
        })
    }
}

/// Has a function do something: the body is its payload, mostly JSON, of at most 6 MiB.
///
/// Where the function fails, or does not answer in time, the status is 200 all the same, the header
/// `Hearth-Function-Error` has the kind of error, and the body an object with `errorType` and
/// `errorMessage`, as on AWS Lambda. Who closes the connection before the answer cancels the
/// request, and ends the sandbox that was at work on it.
#[utoipa::path(post, path = "/v1/functions/{name}/invocations", tag = "invocations",
    params(
        ("name" = String, Path, description = "The function."),
        ("Hearth-Request-Id" = Option<String>, Header, description =
            "A UUID, to ask for the outcome by later; each is for one request. Made up where it is left out."),
        ("Hearth-Timeout" = Option<String>, Header, description =
            "Time for it, with its unit, such as `5s`; the function's own where it is left out, and never more than that."),
        ("traceparent" = Option<String>, Header, description =
            "W3C trace context; the function gets it as `Lambda-Runtime-Trace-Id`."),
    ),
    request_body(content = serde_json::Value, content_type = "application/json", description = "The payload."),
    responses(
        (status = 200, description = "What the function answered, or its error.",
            content_type = "application/json", body = serde_json::Value,
            headers(
                ("Hearth-Request-Id" = String, description = "The request's id."),
                ("Hearth-Function-Error" = Option<String>, description =
                    "The kind of error; absent where the function answered."),
                ("Hearth-Function-Version" = u32, description = "The version that was asked."),
                ("Hearth-Sandbox" = Option<String>, description = "The sandbox that was at work on it."),
                ("Hearth-Sandbox-Origin" = String, description =
                    "`warm` (it was idle), `parked` (the function was started in one that was made ahead of time), `fresh` (one was made), `found` (it was at work before this agent began)."),
                ("Server-Timing" = Option<String>, description =
                    "The steps on the way: `start` and `dur` in milliseconds after the request came in."),
            )),
        (status = "default", description = "A problem that is not the function's.",
            body = ProblemDocument, content_type = "application/problem+json"),
    ))]
pub async fn invoke(
    State(api): State<Api>,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    let mut body = body;
    let name = named(&name)?;
    let (mut request, _room) = match expected(&api, &name, &headers) {
        Ok(request) => request,
        Err(problem) => {
            // Who waits for leave to send it is told before that.
            if !headers.contains_key(header::EXPECT) {
                discard(&mut body).await;
            }
            return Err(problem.into());
        }
    };
    let Ok(payload) = Limited::new(&mut body, MAX_BODY).collect().await else {
        // Too large, or broken off in the middle: then it is nobody's any more.
        discard(&mut body).await;
        return Err(too_large().into());
    };
    request.payload = payload.to_bytes().into();
    let invoked = api.manager.invoke(&name, request).await?;
    Ok(told(&invoked))
}

/// What the headers of a request ask for, and room for its payload: who asks for what cannot be is
/// told before the payload is read.
fn expected(
    api: &Api,
    name: &FunctionName,
    headers: &HeaderMap,
) -> Result<(Request, OwnedSemaphorePermit), Problem> {
    let id = match text(headers, REQUEST_ID)? {
        Some(text) => text.parse().map_err(|error: hearth_runtime::id::IdError| {
            Problem::field(REQUEST_ID, text, error.to_string(), "")
        })?,
        None => RequestId::random().map_err(|error| {
            let detail = format!("no random bytes for an id: {error}");
            Problem::new(Kind::Busy, detail, "try again")
        })?,
    };
    let timeout = match text(headers, TIMEOUT)? {
        Some(text) => Some(
            text.parse::<Period>()
                .map_err(|error| Problem::field(TIMEOUT, text, error, "write a time such as 5s"))?,
        ),
        None => None,
    };
    let trace = text(headers, "traceparent")?.and_then(trace);
    api.manager.show(name)?;
    let length = headers.get(header::CONTENT_LENGTH);
    let length = length.and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    let length = length.unwrap_or(MAX_BODY);
    if length > MAX_BODY {
        return Err(too_large().about("content-length", length));
    }
    let request = Request {
        id,
        ask: Ask {
            trace,
            ..Ask::default()
        },
        timeout: timeout.map(|timeout| timeout.0),
        payload: Vec::new(),
    };
    Ok((request, api.payloads.room(length)?))
}

fn too_large() -> Problem {
    let remedy = "send at most 6291456 bytes, or put what is large where the function can read it";
    Problem::new(Kind::TooLarge, "a payload has at most 6 MiB", remedy)
}

/// Takes the rest of a payload and drops it, within bounds: most clients look for the answer only
/// when they have sent it all, and lose the answer where the connection closes on them before.
async fn discard(body: &mut Body) {
    let all = async {
        let mut left = MAX_DISCARDED;
        while let Some(Ok(frame)) = body.frame().await {
            left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
            if left == 0 {
                break;
            }
        }
    };
    // Either way it is answered then.
    let _ = tokio::time::timeout(DISCARDING, all).await;
}

/// What became of a request, for who lost the answer: kept for 10 minutes.
#[utoipa::path(get, path = "/v1/invocations/{id}", tag = "invocations",
    params(("id" = String, Path, description = "The request's id.")),
    responses(
        (status = 200, description = "As it was answered, with the same headers.",
            content_type = "application/json", body = serde_json::Value),
        (status = 202, description = "The function is at work on it."),
        (status = "default", description = "A problem.", body = ProblemDocument,
            content_type = "application/problem+json"),
    ))]
pub async fn outcome(State(api): State<Api>, Path(id): Path<String>) -> Result<Response, Refusal> {
    let id: RequestId = id.parse().map_err(|error: hearth_runtime::id::IdError| {
        Problem::field("id", &id, error.to_string(), "")
    })?;
    match api.manager.outcome(id).await? {
        Known::Running => Ok(StatusCode::ACCEPTED.into_response()),
        Known::Over(ending) => Ok(told(&*ending?)),
    }
}

/// How the function was started for a request, cut into phases by what the kernel told: one cold
/// start, as `hearth trace --json` has it (docs/schema/cold-start.schema.json). It is known a moment
/// after the function was ready, and kept for the last 200 starts.
#[utoipa::path(get, path = "/v1/invocations/{id}/cold-start", tag = "invocations",
    params(("id" = String, Path, description = "The request's id.")),
    responses(
        (status = 200, description = "The cold start.",
            content_type = "application/json", body = serde_json::Value),
        (status = "default", description = "A problem: the function was warm, or nobody watches.",
            body = ProblemDocument, content_type = "application/problem+json"),
    ))]
pub async fn cold_start(
    State(api): State<Api>,
    Path(id): Path<String>,
) -> Result<Response, Refusal> {
    let id: RequestId = id.parse().map_err(|error: hearth_runtime::id::IdError| {
        Problem::field("id", &id, error.to_string(), "")
    })?;
    let unknown = |detail: &str, remedy: &str| {
        Refusal(Problem::new(Kind::UnknownStart, detail, remedy).about("id", id))
    };
    if !api.manager.sees_starts() {
        let remedy = "leave cold_start among the `signals` of the configuration";
        return Err(unknown("this agent does not watch cold starts", remedy));
    }
    let claimed = match api.manager.outcome(id).await? {
        Known::Over(Ok(invoked)) => invoked.claimed,
        Known::Over(Err(_)) | Known::Running => None,
    };
    let Some(claimed) = claimed else {
        let detail = "no function was started for this request";
        return Err(unknown(detail, "ask for one whose sandbox was not `warm`"));
    };
    match tokio::time::timeout(SEEN, api.manager.starts().of(claimed)).await {
        Ok(document) => {
            let kind = [(header::CONTENT_TYPE, "application/json")];
            Ok((kind, document).into_response())
        }
        Err(_) => Err(unknown(
            "the start was not seen, or is forgotten",
            "`hearth doctor` may tell why",
        )),
    }
}

/// An outcome as a response.
fn told(invoked: &Invoked) -> Response {
    let (body, error) = match &invoked.outcome {
        Outcome::Answered(body) => (body, None),
        Outcome::Failed { kind, body } => (body, Some(visible(kind))),
    };
    let mut response = Body::from(body.clone()).into_response();
    let sandbox = invoked.sandbox.map(|sandbox| sandbox.to_string());
    let all = [
        (
            header::CONTENT_TYPE.as_str(),
            Some("application/json".to_owned()),
        ),
        (REQUEST_ID, Some(invoked.request.to_string())),
        (VERSION, Some(invoked.version.to_string())),
        (SANDBOX, sandbox),
        (ORIGIN, Some(invoked.origin.word().to_owned())),
        (FUNCTION_ERROR, error),
        (
            "server-timing",
            Some(timing(&invoked.steps)).filter(|steps| !steps.is_empty()),
        ),
    ];
    let headers = response.headers_mut();
    for (name, value) in all {
        if let Some(value) = value.and_then(|value| HeaderValue::try_from(value).ok()) {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
    response
}

/// A function's word as far as a header takes it.
fn visible(kind: &str) -> String {
    let visible = |c: char| {
        if c.is_ascii_graphic() || c == ' ' {
            c
        } else {
            '?'
        }
    };
    kind.chars().map(visible).collect()
}

/// The steps as `Server-Timing` has them.
fn timing(steps: &[Step]) -> String {
    let mut text = String::new();
    for (index, step) in steps.iter().enumerate() {
        let token = |c: char| {
            if c.is_ascii_alphanumeric() || c == '_' {
                c
            } else {
                '-'
            }
        };
        let name: String = step.name.chars().map(token).collect();
        let [begin, length] = [step.begin, step.length].map(|time| time.as_secs_f64() * 1000.0);
        let comma = if index == 0 { "" } else { ", " };
        // Writing to a string cannot fail.
        let _ = write!(text, "{comma}{name};start={begin:.3};dur={length:.3}");
    }
    text
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, Problem> {
    let Some(value) = headers.get(name) else {
        return Ok(None);
    };
    let text = value.to_str().map_err(|_| {
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        Problem::field(name, value, "no text", "send visible ASCII characters only")
    })?;
    Ok(Some(text))
}

/// A W3C trace context in the form that functions on AWS Lambda get; none where it is none.
fn trace(parent: &str) -> Option<String> {
    let mut parts = parent.split('-');
    let [_, trace, span, flags] = [(); 4].map(|()| parts.next().unwrap_or_default());
    let is_hex = |text: &str| text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if (trace.len(), span.len(), flags.len()) != (32, 16, 2)
        || ![trace, span, flags].map(is_hex).iter().all(|hex| *hex)
    {
        return None;
    }
    let (seconds, random) = trace.split_at_checked(8)?;
    let sampled = u8::from_str_radix(flags, 16).ok()? & 1;
    Some(format!(
        "Root=1-{seconds}-{random};Parent={span};Sampled={sampled}"
    ))
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn a_trace_context_becomes_the_form_of_the_runtime_api() {
        let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        assert_eq!(
            trace(parent).as_deref(),
            Some("Root=1-0af76519-16cd43dd8448eb211c80319c;Parent=b7ad6b7169203331;Sampled=1")
        );
        for wrong in [
            "",
            "00",
            "00-0-b7ad6b7169203331-01",
            &parent.replace("0af", "xyz"),
        ] {
            assert_eq!(trace(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn steps_are_told_as_browsers_read_them() {
        let step = |name: &str, begin, length| Step {
            name: name.to_owned(),
            begin: Duration::from_micros(begin),
            length: Duration::from_micros(length),
        };
        let text = timing(&[step("claim", 5, 450), step("a b;c", 455, 1_000)]);
        assert_eq!(
            text,
            "claim;start=0.005;dur=0.450, a-b-c;start=0.455;dur=1.000"
        );
        assert_eq!(visible("My.Err\u{f6}r\n"), "My.Err?r?");
    }
}
