//! Functions that are asked for all the time, and do not always answer.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::Result;
use hearth_tests::api::Api;
use hearth_tests::node::Language;
use hearth_tests::serving::Serving;
use serde_json::{Value, json};

/// How long a caller waits.
const PATIENCE: Duration = Duration::from_secs(20);
/// Faults of the one that keeps failing: with one more it would be left alone for longer than its
/// alert allows.
const FAULTS: usize = 3;

/// One that gets two sandboxes and hardly a queue, and one that will fail.
pub(crate) fn deploy(serving: &Serving) -> Result<()> {
    let set = ["--set", "max_instances=2", "--set", "queue=1"];
    serving.deploy(Language::Rust, &set)?;
    let start = Language::Rust.start()?;
    let failing = json!({
        "root": start.root.layers,
        "command": start.program.command,
        "max_instances": 1,
    });
    serving.api().deploy("failing", &failing)?;
    Ok(())
}

/// Requests of all kinds: for idle sandboxes, for busy ones, for more than there may be; that fail,
/// and that take too long, so that the next one finds no sandbox.
pub(crate) fn ask_until(api: &Api, stop: &AtomicBool) {
    let ask = |payload: Value, patience: Duration| {
        let _ = api.invoke("rust", &payload, patience);
    };
    while !stop.load(Ordering::Relaxed) {
        thread::scope(|scope| {
            for _ in 0..5 {
                scope.spawn(|| ask(json!({ "do": "sleep", "seconds": 0.3 }), PATIENCE));
            }
        });
        ask(json!({ "do": "echo" }), PATIENCE);
        ask(json!({ "do": "fail" }), PATIENCE);
        ask(json!({ "do": "spin" }), Duration::from_millis(200));
        thread::sleep(Duration::from_millis(500));
    }
}

/// A function whose sandbox ends, again as soon as it is not left alone any more.
pub(crate) fn fail_until(api: &Api, stop: &AtomicBool) {
    let mut faults = 0;
    while faults < FAULTS && !stop.load(Ordering::Relaxed) {
        let reply = api.invoke("failing", &json!({ "do": "exit" }), PATIENCE);
        let is_fault = |reply: &hearth_tests::api::Reply| reply.status == 200;
        faults += usize::from(reply.is_ok_and(|reply| is_fault(&reply)));
        thread::sleep(Duration::from_secs(2));
    }
}
