//! `hearth fn logs`.

use std::fmt::Write as _;
use std::io::{self, Write as _};

use clap::Args;
use hearth_runtime::id::FunctionName;
use http::Method;
use http_body_util::BodyExt as _;

use super::client::Client;
use crate::cli::terminal::Terminal;
use crate::functions::logs::{Output, Piece};

/// Print what a function wrote lately.
#[derive(Debug, Args)]
pub(super) struct Logs {
    /// Its name.
    name: FunctionName,
    /// Go on with what it writes from now on, until interrupted.
    #[arg(long, short)]
    follow: bool,
    /// Print one JSON object a line (docs/api.md: Piece).
    #[arg(long)]
    json: bool,
}

impl Logs {
    pub(super) async fn act(self, client: &Client, terminal: &Terminal) -> anyhow::Result<()> {
        let path = format!("/v1/functions/{}/logs?follow={}", self.name, self.follow);
        let response = client.send(Method::GET, &path, &[], Vec::new()).await?;
        let mut body = response.into_body();
        let mut bytes = Vec::new();
        while let Some(frame) = body.frame().await {
            if let Ok(data) = frame?.into_data() {
                bytes.extend_from_slice(&data);
            }
            let mut stdout = io::stdout().lock();
            while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = bytes.drain(..=end).collect();
                if self.json {
                    stdout.write_all(&line)?;
                } else {
                    let piece: Piece = serde_json::from_slice(&line)?;
                    stdout.write_all(lines(&piece, terminal).as_bytes())?;
                }
            }
            stdout.flush()?;
        }
        Ok(())
    }
}

/// A piece as lines: when, in which sandbox, what.
pub(super) fn lines(piece: &Piece, terminal: &Terminal) -> String {
    let millis = piece.unix_ms;
    let seconds = millis / 1_000;
    let id = piece.sandbox.to_string();
    let mark = match piece.stream {
        Output::Stdout => "",
        Output::Stderr => "! ",
        Output::Hearth => "hearth: ",
    };
    let head = format!(
        "{:02}:{:02}:{:02}.{:03}Z {}",
        seconds / 3_600 % 24,
        seconds / 60 % 60,
        seconds % 60,
        millis % 1_000,
        id.get(..8).unwrap_or(&id),
    );
    let head = terminal.dim(&head);
    let mut text = String::new();
    // Writing to a string cannot fail.
    if piece.lost_bytes > 0 {
        let lost = format!("hearth: {} bytes were lost before this", piece.lost_bytes);
        let _ = writeln!(text, "{head} {lost}");
    }
    for line in piece.text.lines() {
        let _ = writeln!(text, "{head} {mark}{}", terminal.show(line));
    }
    text
}
