//! A client of the API's socket: one request, one connection.

use std::io::{self, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use axum::body::Bytes;
use http::{Method, Request, Response, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

use crate::api::problem::{CONTENT_TYPE, ProblemDocument};
use crate::functions::Problem;

/// How long something may take before a person is told that it goes on.
const SILENT: Duration = Duration::from_secs(1);

/// Who asks.
#[derive(Debug)]
pub(super) struct Client {
    socket: PathBuf,
}

/// Something that was asked for and was not done.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refused {
    #[error("{0}")]
    Problem(Problem),
    #[error("the API answered {0}, and no more")]
    Status(http::StatusCode),
}

impl Client {
    pub(super) const fn new(socket: PathBuf) -> Self {
        Self { socket }
    }

    /// Sends a request with a body; the answer, if it is a good one.
    pub(super) async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, String)],
        body: Vec<u8>,
    ) -> anyhow::Result<Response<Incoming>> {
        let stream = UnixStream::connect(&self.socket)
            .await
            .map_err(|error| nobody(&self.socket, &error))?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "localhost");
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let request = request.body(Full::new(Bytes::from(body)))?;
        let response = sender
            .send_request(request)
            .await
            .with_context(|| format!("no answer at {}", self.socket.display()))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let is_problem = response
            .headers()
            .get(header::CONTENT_TYPE)
            .is_some_and(|kind| kind == CONTENT_TYPE);
        let body = whole(response).await?;
        let document: Option<ProblemDocument> = is_problem
            .then(|| serde_json::from_slice(&body).ok())
            .flatten();
        match document.and_then(ProblemDocument::problem) {
            Some(problem) => Err(Refused::Problem(problem).into()),
            None => Err(Refused::Status(status).into()),
        }
    }

    /// As [`Self::send`], of which the whole answer is JSON.
    pub(super) async fn ask<T: serde::de::DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
    ) -> anyhow::Result<T> {
        let response = self.send(method, path, &[], body).await?;
        let body = whole(response).await?;
        serde_json::from_slice(&body).context("the answer is none of this version of the API")
    }
}

/// The whole body.
pub(super) async fn whole(response: Response<Incoming>) -> anyhow::Result<Bytes> {
    let body = response.into_body().collect().await;
    Ok(body.context("the answer broke off")?.to_bytes())
}

fn nobody(socket: &Path, error: &io::Error) -> anyhow::Error {
    let remedy = match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            "start `hearth run` with functions.enabled = true, or name its socket with --socket"
        }
        io::ErrorKind::PermissionDenied => "be the user that runs hearth",
        _ => "name the socket of `hearth run` with --socket",
    };
    anyhow::anyhow!(
        "no functions are served at {}: {error}; {remedy}",
        socket.display()
    )
}

/// Waits for `work`; where that takes longer than a moment, a person at a terminal is told of it.
pub(super) async fn patiently<T>(doing: &str, work: impl Future<Output = T>) -> T {
    let mut stderr = io::stderr();
    if !stderr.is_terminal() {
        return work.await;
    }
    let began = Instant::now();
    let mut work = std::pin::pin!(work);
    let mut told = false;
    loop {
        tokio::select! {
            done = &mut work => {
                if told {
                    let _ = write!(stderr, "\r\u{1b}[K");
                }
                return done;
            }
            () = tokio::time::sleep(SILENT) => {
                told = true;
                let _ = write!(stderr, "\r\u{1b}[K{doing}: {} s", began.elapsed().as_secs());
                let _ = stderr.flush();
            }
        }
    }
}
