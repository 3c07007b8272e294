//! Functions as a user serves them: a node with its spawner, a store, and one agent after the other.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tempfile::TempDir;

use crate::api::Api;
use crate::child::{self, Finished};
use crate::daemon::Daemon;
use crate::node::{Language, Node, PATIENCE};
use crate::{requirement, trace};

/// A node with a spawner, and a store for one agent after the other.
#[derive(Debug)]
pub struct Serving {
    /// Where sandboxes are made.
    pub node: Node,
    folder: TempDir,
}

impl Serving {
    /// With as many sandboxes parked.
    pub fn new(what: &str, slots: u16) -> Result<Self> {
        requirement::root()?;
        let node = Node::start(what, slots)?;
        node.parked(slots.into())?;
        let folder = tempfile::Builder::new()
            .prefix(&format!("hearth-{what}-"))
            .tempdir()?;
        Ok(Self { node, folder })
    }

    /// Where the API is.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.node.places().directory().join("api.sock")
    }

    /// Where all is that the agents keep.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// What the agents keep of functions.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.folder().join("state")
    }

    /// The audit of what they did about faults.
    #[must_use]
    pub fn audit(&self) -> PathBuf {
        self.folder().join("heal")
    }

    /// Its API.
    #[must_use]
    pub fn api(&self) -> Api {
        Api::at(self.socket())
    }

    /// An agent with functions that watches cold starts, and `more` lines in the settings of
    /// functions.
    pub fn agent(&self, more: &str) -> Result<Daemon> {
        self.watching(&["cold_start"], more)
    }

    /// An agent with functions that watches these signals.
    pub fn watching(&self, signals: &[&str], more: &str) -> Result<Daemon> {
        let settings = self.settings();
        Daemon::start(&format!("signals = {signals:?}\n{settings}{more}\n"))
    }

    /// `[functions]` of its agents.
    #[must_use]
    pub fn settings(&self) -> String {
        format!(
            "[functions]\nenabled = true\nstate_dir = \"{}\"\napi_socket = \"{}\"\n\
             spawner_dir = \"{}\"\n",
            self.state().display(),
            self.socket().display(),
            self.node.places().directory().display(),
        )
    }

    /// `hearth fn …`, to be run.
    pub fn command(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = Command::new(trace::hearth()?);
        command
            .arg("fn")
            .args(arguments)
            .arg("--socket")
            .arg(self.socket());
        Ok(command)
    }

    /// `hearth fn …`.
    pub fn run(&self, arguments: &[&str]) -> Result<Finished> {
        child::run(&mut self.command(arguments)?, PATIENCE)
    }

    /// What `hearth fn … --json` says.
    pub fn json(&self, arguments: &[&str]) -> Result<Value> {
        let told = self.run(arguments)?.success()?.stdout;
        serde_json::from_str(&told).with_context(|| told)
    }

    /// Deploys the function of a language; its name.
    pub fn deploy(&self, language: Language, more: &[&str]) -> Result<String> {
        let start = language.start()?;
        let name = start.function.to_string();
        let mut command = self.command(&["deploy", &name])?;
        for layer in &start.root.layers {
            command.arg("--root").arg(layer);
        }
        for (name, value) in &start.program.environment {
            command.arg("--env").arg(format!("{name}={value}"));
        }
        let directory = start.program.directory.display();
        command.arg("--set").arg(format!("directory={directory}"));
        command.args(more).arg("--").args(&start.program.command);
        child::run(&mut command, PATIENCE)?.success()?;
        Ok(name)
    }

    /// Waits until something is so.
    pub fn until(&self, what: &str, mut is_so: impl FnMut(&Self) -> Result<bool>) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while !is_so(self)? {
            ensure!(Instant::now() < deadline, "never so: {what}");
            thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }
}
