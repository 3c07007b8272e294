//! `hearth fn`: functions, by the API of a `hearth run` on this node.

mod client;
mod deploy;
mod invoke;
mod logs;
mod record;
mod show;
mod steps;
#[cfg(test)]
mod tests;

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use hearth_runtime::id::FunctionName;
use http::Method;

use super::terminal::Terminal;
use super::trace::is_broken_pipe;
use crate::config::Config;
use crate::functions::view::FunctionView;
use client::{Client, patiently};

/// Deploy functions, invoke them, and see what they do.
///
/// A function is a directory (or a tar archive, or an OCI image) and a command that speaks the AWS
/// Lambda Runtime API: what is built with lambda_runtime (Rust) or awslambdaric (Python) for AWS
/// runs unmodified, and so does a shell script that knows curl. It runs in a sandbox of its own,
/// one request at a time, which is kept for the next request.
///
/// `hearth run` serves them where functions.enabled is true or a [functions.NAME] is configured,
/// with hearth-spawner beside it; these commands are clients of its socket. docs/functions.md says
/// more, docs/api.md describes the same for programs.
#[derive(Debug, Args)]
#[expect(
    clippy::doc_markdown,
    reason = "--help shows these texts, where Markdown means nothing"
)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  hearth fn deploy hello --root ./hello -- /bootstrap
                                     copy ./hello, run /bootstrap in it
  hearth fn invoke hello '{\"name\": \"Ada\"}'
  hearth fn invoke hello --trace     where the time of the request went
  hearth fn logs hello --follow      what it prints, as it prints it
  hearth fn list --json | jq -r '.[].name'
  hearth fn rm hello

Exits with 0; with 1 where something was not done, and 2 where the command line is wrong. `invoke`
exits with 3 where the function failed: then its error is what is printed."
)]
pub struct Functions {
    #[command(subcommand)]
    action: Action,
    /// Configuration file [default: /etc/hearth/hearth.toml, if there is one].
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    /// Socket of the API [default: functions.api_socket of the configuration].
    #[arg(long, value_name = "PATH", global = true)]
    socket: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
#[expect(
    clippy::doc_markdown,
    reason = "--help shows these texts, where Markdown means nothing"
)]
enum Action {
    /// Deploy a function, or another version of it.
    Deploy(deploy::Deploy),
    /// List the functions.
    List {
        /// Print one JSON array (FunctionView in docs/api.md).
        #[arg(long)]
        json: bool,
    },
    /// Show one function: what was deployed, and what its sandboxes do.
    Show {
        /// Its name.
        name: FunctionName,
        /// Print one JSON object (FunctionView in docs/api.md), with the values of its environment.
        #[arg(long)]
        json: bool,
    },
    /// Invoke a function, and print what it answers.
    Invoke(invoke::Invoke),
    /// Print what a function wrote lately: the last MiB since `hearth run` began.
    Logs(logs::Logs),
    /// Record what the pools are told and what they decide, for `hearth simulate --trace`.
    Record(record::Record),
    /// Remove a function, with its versions and sandboxes. What it is at work on is cancelled.
    Rm {
        /// Its name.
        name: FunctionName,
    },
}

impl Functions {
    /// Does it; what the shell is told of the end.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let socket = if let Some(socket) = self.socket {
            socket
        } else {
            Config::load(self.config.as_deref())?.functions.api_socket
        };
        let client = Client::new(socket);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        match runtime.block_on(self.action.act(&client)) {
            // Whoever read our output has seen enough.
            Err(error) if is_broken_pipe(&error) => Ok(ExitCode::SUCCESS),
            result => result,
        }
    }
}

impl Action {
    async fn act(self, client: &Client) -> anyhow::Result<ExitCode> {
        let terminal = Terminal::stdout();
        match self {
            Self::Deploy(deploy) => deploy.act(client).await?,
            Self::List { json } => {
                let all: Vec<FunctionView> =
                    client.ask(Method::GET, "/v1/functions", Vec::new()).await?;
                print(&if json {
                    serde_json::to_string_pretty(&all)? + "\n"
                } else {
                    show::list(&all, &terminal)
                })?;
            }
            Self::Show { name, json } => {
                let path = format!("/v1/functions/{name}");
                let one: FunctionView = client.ask(Method::GET, &path, Vec::new()).await?;
                print(&if json {
                    serde_json::to_string_pretty(&one)? + "\n"
                } else {
                    show::show(&one, &terminal)
                })?;
            }
            Self::Invoke(invoke) => return invoke.act(client, &terminal).await,
            Self::Logs(logs) => logs.act(client, &terminal).await?,
            Self::Record(record) => record.act(client).await?,
            Self::Rm { name } => {
                let path = format!("/v1/functions/{name}");
                let removing = client.send(Method::DELETE, &path, &[], Vec::new());
                patiently(&format!("ending the sandboxes of {name}"), removing).await?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn print(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}
