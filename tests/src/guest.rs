//! Functions that work while nobody waits for them.

use std::os::unix::net::UnixStream;

use anyhow::{Context as _, Result, bail};
use hearth_runtime::channel::{Connection, Frame};
use hearth_runtime::id::{FunctionName, RequestId};
use hearth_runtime::sandbox::Resources;
use hearth_runtime::sandbox::ask::{Claimed, Listed};
use hearth_runtime::sandbox::message::{Ask, FromSandbox, ToSandbox};
use hearth_runtime::sandbox::start::Start;

use crate::node::{Language, Node, PATIENCE};

/// Limits within which all of the tests' functions can be at work.
#[must_use]
pub fn resources() -> Resources {
    Resources {
        memory_bytes: Some(96 << 20),
        // No sandbox of a test may take swap of the machine.
        swap_bytes: Some(0),
        pids: Some(32),
        ..Resources::default()
    }
}

/// As the spawner would list it.
#[must_use]
pub fn listed(claimed: &Claimed, function: &FunctionName) -> Listed {
    Listed {
        sandbox: claimed.sandbox,
        epoch: claimed.epoch,
        function: function.clone(),
        slot: claimed.slot,
        init: claimed.init,
        adopted: false,
    }
}

/// Starts a function in a claimed sandbox, gives it a moment's work, and goes away.
pub fn at_work(node: &Node, listed: &Listed) -> Result<RequestId> {
    let start = Language::Rust.start()?;
    let mut channel = begin(node, listed, &start)?;
    loop {
        let frame = channel.receive(PATIENCE)?;
        match frame.context("the sandbox has ended")?.message {
            FromSandbox::Ready { .. } => break,
            FromSandbox::NotStarted { why } => bail!("{why}"),
            _ => {}
        }
    }
    let request = RequestId::random()?;
    let mut frame = Frame::new(listed.epoch, ToSandbox::Invoke(Ask::default()));
    frame.request = Some(request);
    frame.left = Some(PATIENCE);
    frame.body = br#"{"do": "sleep", "seconds": 0.1}"#.to_vec();
    channel.send(&frame, PATIENCE)?;
    // What was said before somebody else came was heard.
    let (_, _hello) = connect(node, listed)?;
    Ok(request)
}

/// Asks for a start, and waits for nothing.
pub fn begin(
    node: &Node,
    listed: &Listed,
    start: &Start,
) -> Result<Connection<ToSandbox, FromSandbox>> {
    let (mut channel, _) = connect(node, listed)?;
    let mut frame = Frame::new(listed.epoch, ToSandbox::Start(Box::new(start.clone())));
    frame.left = Some(PATIENCE);
    channel.send(&frame, PATIENCE)?;
    Ok(channel)
}

fn connect(
    node: &Node,
    listed: &Listed,
) -> Result<(Connection<ToSandbox, FromSandbox>, FromSandbox)> {
    let stream = UnixStream::connect(node.places().sandbox(listed.sandbox))?;
    let mut channel = Connection::new(stream)?;
    let hello: Frame<FromSandbox> = channel.receive(PATIENCE)?.context("no hello")?;
    Ok((channel, hello.message))
}
