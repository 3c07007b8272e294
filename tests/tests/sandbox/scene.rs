//! One function in one sandbox.

use std::time::Duration;

use anyhow::{Result, bail};
use hearth_runtime::id::RequestId;
use hearth_runtime::sandbox::Resources;
use hearth_runtime::sandbox::ask::{Claimed, Ended};
use hearth_runtime::sandbox::backend::{
    Backend as _, Cancel, Outcome, Prepared, Sandbox, SandboxError, Started, Told, Work,
};
use hearth_runtime::sandbox::message::Ask;
use hearth_runtime::sandbox::process::Processes;
use hearth_runtime::sandbox::start::Start;
pub(crate) use hearth_tests::guest::resources;
use hearth_tests::node::{Node, PATIENCE};
use serde_json::Value;

/// A function's sandbox, with all that it has told.
pub(crate) struct Instance {
    backend: Processes,
    sandbox: Box<dyn Sandbox>,
    pub(crate) claimed: Claimed,
    /// What it wrote.
    pub(crate) log: String,
    /// Calls that were refused, by name.
    pub(crate) refused: Vec<String>,
}

impl Instance {
    pub(crate) fn claim(node: &Node, start: &Start, resources: Resources) -> Result<Self> {
        let backend = node.sandboxes();
        let Prepared { sandbox, claimed } = backend.prepare(&start.function, resources)?;
        Ok(Self {
            backend,
            sandbox,
            claimed,
            log: String::new(),
            refused: Vec::new(),
        })
    }

    /// Claims a sandbox and starts the function; it is ready.
    pub(crate) fn ready(node: &Node, start: &Start) -> Result<Self> {
        let mut instance = Self::claim(node, start, resources())?;
        instance.start(start, PATIENCE)?;
        Ok(instance)
    }

    pub(crate) fn start(
        &mut self,
        start: &Start,
        patience: Duration,
    ) -> Result<Started, SandboxError> {
        let (log, refused) = (&mut self.log, &mut self.refused);
        self.sandbox
            .start(start, patience, &mut |told| note(log, refused, told))
    }

    /// One request.
    pub(crate) fn invoke(
        &mut self,
        payload: &[u8],
        left: Duration,
        cancel: &Cancel,
    ) -> Result<(RequestId, Outcome), SandboxError> {
        let request = RequestId::random().map_err(SandboxError::Cancel)?;
        let work = Work {
            request,
            ask: Ask {
                arn: "arn:aws:lambda:here:0:function:test".to_owned(),
                ..Ask::default()
            },
            left,
            payload,
        };
        let (log, refused) = (&mut self.log, &mut self.refused);
        let outcome = self
            .sandbox
            .invoke(work, cancel, &mut |told| note(log, refused, told))?;
        Ok((request, outcome))
    }

    /// One request that is answered, with JSON.
    pub(crate) fn answer(&mut self, payload: &Value) -> Result<(RequestId, Value)> {
        let (request, outcome) =
            self.invoke(payload.to_string().as_bytes(), PATIENCE, &Cancel::new()?)?;
        match outcome {
            Outcome::Answered(body) => Ok((request, serde_json::from_slice(&body)?)),
            Outcome::Failed { kind, body } => {
                bail!("{kind}: {}", String::from_utf8_lossy(&body))
            }
        }
    }

    /// One request that fails: the kind, and what was said of it.
    pub(crate) fn failure(&mut self, payload: &Value, left: Duration) -> Result<(String, String)> {
        match self.invoke(payload.to_string().as_bytes(), left, &Cancel::new()?)? {
            (_, Outcome::Failed { kind, body }) => {
                Ok((kind, String::from_utf8_lossy(&body).into_owned()))
            }
            (_, Outcome::Answered(body)) => {
                bail!("answered: {}", String::from_utf8_lossy(&body))
            }
        }
    }

    pub(crate) fn end(self) -> Result<Ended> {
        Ok(self.backend.end(self.claimed.sandbox)?)
    }
}

fn note(log: &mut String, refused: &mut Vec<String>, told: Told<'_>) {
    match told {
        Told::Log { bytes, .. } => log.push_str(&String::from_utf8_lossy(bytes)),
        Told::Refused(calls) => refused.extend(calls.keys().cloned()),
    }
}
