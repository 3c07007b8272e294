//! `hearth fn invoke`.

use std::io::{self, IsTerminal as _, Read as _, Write as _};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use hearth_runtime::channel::MAX_BODY;
use hearth_runtime::id::{FunctionName, RequestId};
use http::{HeaderMap, Method};
use serde::Serialize;
use serde_json::Value;

use super::client::{Client, patiently, whole};
use super::steps::{Step, steps_of, waterfall};
use crate::api::invocations::{FUNCTION_ERROR, ORIGIN, REQUEST_ID, SANDBOX, TIMEOUT, VERSION};
use crate::cli::{self, terminal::Terminal};
use crate::config::Period;
use crate::observe::cold_start::ColdStart;

/// What the shell is told where the function failed.
const FUNCTION_FAILED: u8 = 3;

/// Invoke a function, and print what it answers.
///
/// The payload is an argument, a file (@FILE), or standard input (-, or nothing where that is no
/// terminal); where there is none it is {}. Ending the command cancels the request, and ends the
/// sandbox that is at work on it.
#[derive(Debug, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  hearth fn invoke hello '{\"name\": \"Ada\"}'
  hearth fn invoke hello @event.json
  jq .event log.json | hearth fn invoke hello
  hearth fn invoke hello --trace     what took how long, on standard error
  hearth fn invoke hello --json | jq '.origin, .steps'"
)]
pub(super) struct Invoke {
    /// Its name.
    name: FunctionName,
    /// The payload: text, @FILE, or - for standard input.
    payload: Option<String>,
    /// Less time than the function has anyway.
    #[arg(long, value_name = "TIME")]
    timeout: Option<Period>,
    /// The request's id, a UUID: for its outcome later, should the answer be lost.
    #[arg(long, value_name = "UUID")]
    request: Option<RequestId>,
    /// Show on standard error what took how long.
    #[arg(long)]
    trace: bool,
    /// Print one JSON object: the answer, and all that is known of the request.
    #[arg(long)]
    json: bool,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
pub(super) struct Told {
    pub(super) function: String,
    pub(super) version: Option<u32>,
    pub(super) request: Option<String>,
    pub(super) sandbox: Option<String>,
    pub(super) origin: Option<String>,
    /// The kind of error where the function failed; then the answer is its error.
    pub(super) error: Option<String>,
    /// As JSON where it is; else as text.
    pub(super) answer: Value,
    pub(super) steps: Vec<Step>,
}

impl Told {
    pub(super) fn of(function: &FunctionName, headers: &HeaderMap, body: &[u8]) -> Self {
        let text = |name: &str| {
            let value = headers.get(name)?.to_str().ok()?;
            Some(value.to_owned())
        };
        Self {
            function: function.to_string(),
            version: text(VERSION).and_then(|version| version.parse().ok()),
            request: text(REQUEST_ID),
            sandbox: text(SANDBOX),
            origin: text(ORIGIN),
            error: text(FUNCTION_ERROR),
            answer: serde_json::from_slice(body)
                .unwrap_or_else(|_| String::from_utf8_lossy(body).into_owned().into()),
            steps: text("server-timing").map_or_else(Vec::new, |text| steps_of(&text)),
        }
    }
}

impl Invoke {
    pub(super) async fn act(
        self,
        client: &Client,
        terminal: &Terminal,
    ) -> anyhow::Result<ExitCode> {
        let payload = payload(self.payload.as_deref())?;
        let path = format!("/v1/functions/{}/invocations", self.name);
        let timeout = self.timeout.map(|time| (TIMEOUT, time.to_string()));
        let request = self.request.map(|id| (REQUEST_ID, id.to_string()));
        let headers: Vec<_> = timeout.into_iter().chain(request).collect();
        let answering = async {
            let response = client.send(Method::POST, &path, &headers, payload).await?;
            let headers = response.headers().clone();
            anyhow::Ok((headers, whole(response).await?))
        };
        let (headers, body) = patiently(&format!("{} is at work", self.name), answering).await?;
        let told = Told::of(&self.name, &headers, &body);
        if self.trace {
            let stderr = io::stderr();
            let text = waterfall(&told, terminal) + &start(client, &told, terminal).await?;
            stderr.lock().write_all(text.as_bytes())?;
        }
        let mut stdout = io::stdout().lock();
        if self.json {
            writeln!(stdout, "{}", serde_json::to_string_pretty(&told)?)?;
        } else {
            stdout.write_all(&body)?;
            if stdout.is_terminal() && !body.ends_with(b"\n") {
                stdout.write_all(b"\n")?;
            }
        }
        stdout.flush()?;
        match told.error {
            None => Ok(ExitCode::SUCCESS),
            Some(kind) => {
                let kind = terminal.show(&kind);
                eprintln!("hearth: the function failed: {kind}");
                Ok(ExitCode::from(FUNCTION_FAILED))
            }
        }
    }
}

/// How the function was started for the request, as `hearth trace` shows it, or why that is not
/// known; nothing where it was not started.
async fn start(client: &Client, told: &Told, terminal: &Terminal) -> anyhow::Result<String> {
    let was_started = matches!(told.origin.as_deref(), Some("parked" | "fresh"));
    let Some(request) = told.request.as_ref().filter(|_| was_started) else {
        return Ok(String::new());
    };
    let path = format!("/v1/invocations/{request}/cold-start");
    let response = client.send(Method::GET, &path, &[], Vec::new()).await;
    let document = match response {
        Ok(response) => whole(response).await?,
        Err(error) => {
            let text = format!("how it started is not known: {error:#}");
            return Ok(format!("\n{}\n", terminal.show(&text)));
        }
    };
    // Its words are those of the program, and live as long.
    let start: ColdStart = serde_json::from_slice(Vec::from(document).leak())?;
    let picture = cli::waterfall::waterfall(&start, &told.function, &[], terminal);
    Ok(format!("\n{picture}"))
}

/// The payload that is meant.
pub(super) fn payload(text: Option<&str>) -> anyhow::Result<Vec<u8>> {
    let mut bytes = match text {
        Some("-") => all_of(io::stdin().lock())?,
        Some(text) => match text.strip_prefix('@') {
            Some(file) => std::fs::File::open(file)
                .map_err(anyhow::Error::from)
                .and_then(all_of)
                .with_context(|| format!("cannot read the payload {file}"))?,
            None => text.as_bytes().to_vec(),
        },
        None if io::stdin().is_terminal() => Vec::new(),
        None => all_of(io::stdin().lock())?,
    };
    if bytes.is_empty() {
        bytes = b"{}".to_vec();
    }
    Ok(bytes)
}

/// All that there is, unless it is more than the API takes.
fn all_of(source: impl io::Read) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    source.take(MAX_BODY as u64 + 1).read_to_end(&mut bytes)?;
    anyhow::ensure!(
        bytes.len() <= MAX_BODY,
        "a payload has at most {MAX_BODY} bytes; put what is large where the function can read it"
    );
    Ok(bytes)
}
