//! Functions that are killed, hang, or take all they can get.

use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use hearth_runtime::sandbox::backend::{Cancel, Outcome, SandboxError};
use hearth_runtime::sandbox::message::fault;
use hearth_tests::node::{Language, Node, PATIENCE};
use serde_json::json;

use crate::scene::Instance;

/// A function that answers before and after the misdeed of another.
fn beside<T>(node: &Node, misdeed: impl FnOnce() -> Result<T>) -> Result<T> {
    let mut other = Instance::ready(node, &Language::Rust.start()?)?;
    other.answer(&json!({"before": 1}))?;
    let done = misdeed()?;
    other.answer(&json!({"after": 1}))?;
    other.end()?;
    Ok(done)
}

#[test]
fn what_hangs_is_ended_at_its_deadline_and_nothing_of_it_is_left() -> Result<()> {
    let node = Node::start("hang", 2)?;
    node.parked(2)?;
    let before = node.remains()?;
    for (language, order) in [
        (Language::Rust, json!({"do": "spin"})),
        (Language::Python, json!({"do": "sleep", "seconds": 1000})),
        (Language::Shell, json!({"do": "hang"})),
    ] {
        let mut instance = Instance::ready(&node, &language.start()?)?;
        let (kind, _) = instance.failure(&order, Duration::from_secs(1))?;
        assert_eq!(kind, fault::TIMED_OUT, "{language:?}");
        instance.end()?;
    }
    node.settled(&before)
}

#[test]
fn a_cancelled_request_ends_the_sandbox_and_says_so() -> Result<()> {
    let node = Node::start("cancel", 1)?;
    node.parked(1)?;
    let before = node.remains()?;
    let mut instance = Instance::ready(&node, &Language::Python.start()?)?;
    let cancel = Cancel::new()?;
    let later = thread::spawn({
        let cancel = cancel.clone();
        move || {
            thread::sleep(Duration::from_millis(200));
            cancel.cancel();
        }
    });
    let event = json!({"do": "sleep", "seconds": 1000}).to_string();
    let (_, outcome) = instance.invoke(event.as_bytes(), PATIENCE, &cancel)?;
    let Outcome::Failed { kind, .. } = outcome else {
        anyhow::bail!("answered");
    };
    assert_eq!(kind, fault::CANCELLED);
    let _ = later.join();
    instance.end()?;
    node.settled(&before)
}

#[test]
fn a_function_that_ends_at_work_is_told_with_its_status() -> Result<()> {
    let node = Node::start("exit", 1)?;
    node.parked(1)?;
    let before = node.remains()?;
    for language in Language::ALL {
        let mut instance = Instance::ready(&node, &language.start()?)?;
        let (kind, said) = instance.failure(&json!({"do": "exit"}), PATIENCE)?;
        assert_eq!(kind, fault::EXITED, "{language:?}");
        assert!(said.contains("exit status 7"), "{language:?}: {said}");
        instance.end()?;
    }
    node.settled(&before)
}

#[test]
fn a_memory_hog_is_killed_alone_and_its_kill_is_counted() -> Result<()> {
    let node = Node::start("hog", 2)?;
    node.parked(2)?;
    let before = node.remains()?;
    for language in [Language::Rust, Language::Python] {
        let ended = beside(&node, || {
            let mut hog = Instance::ready(&node, &language.start()?)?;
            let payload = json!({"do": "hog"}).to_string();
            let told = hog.invoke(payload.as_bytes(), PATIENCE, &Cancel::new()?);
            // The kill reaches `hearth-init` too where the kernel kills by cgroup.
            ensure!(
                matches!(
                    &told,
                    Ok((_, Outcome::Failed { .. })) | Err(SandboxError::Gone)
                ),
                "{told:?}"
            );
            hog.end()
        })?;
        assert!(ended.oom_kills >= Some(1), "{language:?}: {ended:?}");
    }
    node.settled(&before)
}

#[test]
fn a_fork_bomb_reaches_its_limit_and_goes_with_its_sandbox() -> Result<()> {
    let node = Node::start("forks", 2)?;
    node.parked(2)?;
    let before = node.remains()?;
    beside(&node, || {
        let mut bomb = Instance::ready(&node, &Language::Rust.start()?)?;
        let (_, forked) = bomb.answer(&json!({"do": "fork"}))?;
        let forked = forked.as_u64().context("a number")?;
        assert!((1..=31).contains(&forked), "{forked} of 32, init included");
        bomb.end()
    })?;
    node.settled(&before)
}

#[test]
fn a_full_writable_layer_is_the_functions_own_trouble() -> Result<()> {
    let node = Node::start("full", 2)?;
    node.parked(2)?;
    let before = node.remains()?;
    let start = Language::Rust.start()?;
    beside(&node, || {
        let mut full = Instance::ready(&node, &start)?;
        for path in ["/tmp/full", "/dev/shm/full"] {
            let (_, told) = full.answer(&json!({"do": "fill", "path": path}))?;
            let written = told["written"].as_u64().context("a number")?;
            assert!(written <= start.root.writable_bytes, "{path}: {told}");
            assert!(
                [libc::ENOSPC, libc::EACCES, libc::EDQUOT]
                    .map(i64::from)
                    .contains(&told["error"].as_i64().unwrap_or_default()),
                "{path}: {told}"
            );
        }
        // What others see of the layers is as it was.
        let (_, told) = full.answer(&json!({"do": "fill", "path": "/bootstrap"}))?;
        assert_eq!(told["written"], 0, "{told}");
        full.end()
    })?;
    node.settled(&before)
}

#[test]
fn how_a_sandbox_ended_by_itself_is_told_to_who_asks_later() -> Result<()> {
    let node = Node::start("later", 1)?;
    node.parked(1)?;
    let before = node.remains()?;
    let mut instance = Instance::ready(&node, &Language::Rust.start()?)?;
    instance.failure(&json!({"do": "exit"}), PATIENCE)?;
    // Until nothing of it is there.
    node.settled(&before)?;
    let id = instance.claimed.sandbox;
    let ended = instance.end()?;
    assert_eq!(ended.sandbox, id);
    assert!(ended.cpu.is_some(), "{ended:?}");
    let again = node.spawner()?.end(id).err().map(|error| error.to_string());
    assert!(
        again.is_some_and(|told| told.contains("is not there")),
        "told once"
    );
    Ok(())
}
