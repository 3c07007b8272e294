//! `hearth fn deploy`.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use hearth_runtime::id::FunctionName;
use http::Method;
use toml::{Table, Value};

use super::client::{Client, patiently};
use super::print;
use crate::functions::store::Deployed;
use crate::functions::{Definition, Source};

/// Deploy a function, or another version of it.
///
/// Its layers are copied: what is changed afterwards counts when it is deployed again, and the
/// same once more changes nothing. Requests that are under way end in the version that they began
/// in. Keys are those of [functions.NAME] in hearth.toml; what the command line says goes before
/// what is in --file.
#[derive(Debug, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  hearth fn deploy hello --root ./hello -- /bootstrap
  hearth fn deploy shop --root oci:./image:v2 --memory 256MiB
                                     an image brings its command, environment and directory
  hearth fn deploy shop --root ./python.tar.gz --root ./shop --timeout 5s --env STAGE=test \\
      -- python3 -m awslambdaric app.handler
                                     the second layer lies over the first
  hearth fn deploy shop --file shop.toml --set max_instances=50"
)]
pub(super) struct Deploy {
    /// Its name: lowercase letters, digits and hyphens.
    name: FunctionName,
    /// A layer, the lowest first: a directory, a tar archive, or oci:PATH[:TAG].
    #[arg(long, value_name = "LAYER")]
    root: Vec<String>,
    /// Read keys of the function from a TOML file.
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// A variable of its environment.
    #[arg(long, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// Its memory, such as 256MiB.
    #[arg(long, value_name = "SIZE")]
    memory: Option<String>,
    /// Longest time for one request, such as 5s.
    #[arg(long, value_name = "TIME")]
    timeout: Option<String>,
    /// Any other key.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Print what was deployed as one JSON object (docs/api.md: Deployed).
    #[arg(long)]
    json: bool,
    /// The program and its arguments.
    #[arg(last = true)]
    command: Vec<String>,
}

impl Deploy {
    pub(super) async fn act(self, client: &Client) -> anyhow::Result<()> {
        let definition = self.definition()?;
        definition.check()?;
        let path = format!("/v1/functions/{}", self.name);
        let json = serde_json::to_vec(&definition)?;
        let deploying = client.ask(Method::PUT, &path, json);
        let doing = format!("copying the layers of {}", self.name);
        let deployed: Deployed = patiently(&doing, deploying).await?;
        print(&if self.json {
            serde_json::to_string_pretty(&deployed)? + "\n"
        } else {
            format!("{} version {}\n", deployed.name, deployed.version)
        })?;
        Ok(())
    }

    /// What was asked for, with paths as the agent sees them.
    pub(super) fn definition(&self) -> anyhow::Result<Definition> {
        let mut keys = match &self.file {
            Some(file) => std::fs::read_to_string(file)
                .with_context(|| format!("cannot read {}", file.display()))?
                .parse::<Table>()
                .with_context(|| format!("{} is no TOML", file.display()))?,
            None => Table::new(),
        };
        let mut set = |key: &str, value: Option<Value>| {
            if let Some(value) = value {
                keys.insert(key.to_owned(), value);
            }
        };
        let texts = |all: &[String]| {
            let values = all.iter().cloned().map(Value::String).collect();
            (!all.is_empty()).then_some(Value::Array(values))
        };
        set("root", texts(&self.root));
        set("command", texts(&self.command));
        set("memory", self.memory.clone().map(Value::String));
        set("timeout", self.timeout.clone().map(Value::String));
        for pair in &self.set {
            let (key, value) = pair
                .split_once('=')
                .with_context(|| format!("--set {pair}: write KEY=VALUE, such as pids=64"))?;
            set(key, Some(value_of(value)));
        }
        for pair in &self.env {
            let (name, value) = pair
                .split_once('=')
                .with_context(|| format!("--env {pair}: write NAME=VALUE"))?;
            let environment = keys
                .entry("environment")
                .or_insert_with(|| Value::Table(Table::new()));
            if let Value::Table(environment) = environment {
                environment.insert(name.to_owned(), Value::String(value.to_owned()));
            }
        }
        if let Some(Value::Array(layers)) = keys.get_mut("root") {
            for layer in layers {
                if let Value::String(text) = layer {
                    *text = absolute(text)?;
                }
            }
        }
        let read = serde_path_to_error::deserialize(Value::Table(keys));
        read.map_err(|error| anyhow::anyhow!("`{}`: {}", error.path(), error.inner().message()))
    }
}

/// A number or a list as TOML has it; anything else is text, with and without quotes.
fn value_of(text: &str) -> Value {
    let as_toml = format!("it = {text}").parse::<Table>().ok();
    let value = as_toml.and_then(|mut table| table.remove("it"));
    value.unwrap_or_else(|| Value::String(text.to_owned()))
}

/// A layer by the path that leads to it without links from the root of the node.
fn absolute(text: &str) -> anyhow::Result<String> {
    let source = Source::relative(text);
    let path = source.path().canonicalize().with_context(|| {
        format!(
            "the layer {} cannot be found; name a directory, a tar archive, or oci:PATH[:TAG]",
            source.path().display()
        )
    })?;
    Ok(source.at(path).to_string())
}
