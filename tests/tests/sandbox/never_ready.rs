//! Functions that do not get as far as asking for work.

use std::time::Duration;

use anyhow::{Context as _, Result};
use hearth_runtime::sandbox::backend::SandboxError;
use hearth_runtime::sandbox::message::{Exit, NotStarted};
use hearth_runtime::sandbox::start::Start;
use hearth_tests::node::{Language, Node, PATIENCE};

use crate::scene::{Instance, resources};

/// Starts it, which fails; what is told, and that nothing is left.
fn refused(node: &Node, start: &Start, patience: Duration) -> Result<(NotStarted, String)> {
    let mut instance = Instance::claim(node, start, resources())?;
    let error = instance
        .start(start, patience)
        .err()
        .context("it started")?;
    instance.end()?;
    match error {
        SandboxError::NotStarted { why, said } => {
            Ok((why, String::from_utf8_lossy(&said).into_owned()))
        }
        other => Err(other.into()),
    }
}

#[test]
fn each_way_not_to_start_is_told_apart_and_leaves_nothing() -> Result<()> {
    let node = Node::start("never", 1)?;
    node.parked(1)?;
    let before = node.remains()?;
    let with = |change: &dyn Fn(&mut Start)| -> Result<Start> {
        let mut start = Language::Rust.start()?;
        change(&mut start);
        Ok(start)
    };

    let start = with(&|start| start.program.environment = vec![("START".into(), "exit".into())])?;
    let (why, _) = refused(&node, &start, PATIENCE)?;
    assert_eq!(why, NotStarted::Exited { how: Exit::Code(3) });

    let start = with(&|start| start.program.environment = vec![("START".into(), "never".into())])?;
    let second = Duration::from_secs(1);
    let (why, _) = refused(&node, &start, second)?;
    assert!(matches!(why, NotStarted::Deadline { .. }), "{why}");

    let start = with(&|start| start.program.command = vec!["/nothing".into()])?;
    let (why, _) = refused(&node, &start, PATIENCE)?;
    assert!(
        matches!(&why, NotStarted::Program { command, .. } if command == "/nothing"),
        "{why}"
    );

    let start = with(&|start| start.root.layers.push("/hearth-no-such-layer".into()))?;
    let (why, _) = refused(&node, &start, PATIENCE)?;
    assert!(
        matches!(&why, NotStarted::Sandbox { error, .. } if error.contains("/hearth-no-such-layer")),
        "{why}"
    );

    // Its own word for it, by `/init/error`: awslambdaric cannot import this.
    let mut start = Language::Python.start()?;
    start.program.command.pop();
    start.program.command.push("no_such_module.handler".into());
    let (why, said) = refused(&node, &start, PATIENCE)?;
    assert!(
        matches!(&why, NotStarted::Itself { kind } if kind.contains("ImportModuleError")),
        "{why}"
    );
    assert!(said.contains("no_such_module"), "{said}");
    node.settled(&before)
}
