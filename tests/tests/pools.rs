//! Pools on a real node: they grow and shrink, keep what is always to be there, refuse plainly, and
//! decide the same once more from what was recorded.

use std::fs::{self, File};
use std::io::BufReader;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Context, Result, ensure};
use hearth_runtime::pool::simulate::recorded::replay;
use hearth_tests::child::{self, Guard};
use hearth_tests::node::{Language, PATIENCE};
use hearth_tests::serving::Serving;
use hearth_tests::trace;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

/// Takes longer than any test: it ends when who asked is gone.
const ENDLESS: &str = "{\"do\":\"sleep\",\"seconds\":3000}";

/// Deploys the function with these keys; its name.
fn deploy(scene: &Serving, keys: &[&str]) -> Result<String> {
    let all: Vec<&str> = keys.iter().flat_map(|key| ["--set", key]).collect();
    scene.deploy(Language::Rust, &all)
}

fn pool(scene: &Serving, name: &str) -> Result<Value> {
    let shown = scene.api().get(&format!("/v1/functions/{name}"))?;
    Ok(shown["pool"].clone())
}

/// Waits until the pool has these counts.
fn until(scene: &Serving, name: &str, counts: &Value) -> Result<()> {
    let counts = counts.as_object().context("counts")?;
    let mut last = Value::Null;
    let is_so = |scene: &Serving| {
        last = pool(scene, name)?;
        Ok(counts.iter().all(|(key, count)| last[key] == *count))
    };
    let waited = scene.until(&format!("{counts:?}"), is_so);
    waited.with_context(|| format!("{last:#}"))
}

/// Somebody who waits for an answer.
fn asks(scene: &Serving, name: &str, payload: &str) -> Result<Guard> {
    let mut command = scene.command(&["invoke", name, payload])?;
    command.stdout(Stdio::null()).stderr(Stdio::null());
    Ok(Guard(command.spawn()?))
}

/// As many as there may be work, one more waits, and the next one is told to come again.
fn is_full(scene: &Serving, name: &str) -> Result<()> {
    let working = [asks(scene, name, ENDLESS)?, asks(scene, name, ENDLESS)?];
    until(scene, name, &json!({ "busy": 2, "waiting": 0 }))?;
    let mut waiting = asks(scene, name, "{}")?;
    until(scene, name, &json!({ "busy": 2, "waiting": 1 }))?;
    let refused = scene.run(&["invoke", name])?;
    let told = format!("{}{}", refused.stdout, refused.stderr);
    ensure!(refused.status.code() == Some(1), "one too many: {told}");
    ensure!(
        told.contains("its 2 sandboxes are at work, and 1 requests wait for one"),
        "{told}"
    );
    ensure!(told.contains("(after "), "when to come again: {told}");
    drop(working);
    ensure!(waiting.wait(PATIENCE)?.success(), "who waited is answered");
    Ok(())
}

/// Kills an idle sandbox, and waits for what comes in its place.
fn is_there_again(scene: &Serving, name: &str) -> Result<()> {
    let sandboxes = || -> Result<Vec<Value>> {
        let sandboxes = scene.api().get("/v1/sandboxes")?;
        Ok(sandboxes.as_array().context("a list")?.clone())
    };
    scene.until("one is idle", |scene| {
        let pool = pool(scene, name)?;
        Ok(pool["ready"] != 0 && pool["busy"] == 0 && pool["starting"] == 0)
    })?;
    let before = sandboxes()?;
    let idle = before.iter().find(|one| one["state"] == "idle");
    let killed = idle.context("an idle one")?;
    let pid = killed["pid"].as_i64().context("a pid")?;
    let pid = Pid::from_raw(pid.try_into()?).context("a pid")?;
    kill_process(pid, Signal::KILL)?;
    scene.until("there is one without it", |scene| {
        let is_gone = sandboxes()?.iter().all(|one| one["id"] != killed["id"]);
        Ok(is_gone && pool(scene, name)?["ready"] != 0)
    })
}

/// Lines of a recording but the first.
fn recorded(file: &Path) -> Result<Vec<Value>> {
    let text = fs::read_to_string(file)?;
    let lines = text.lines().skip(1).map(serde_json::from_str);
    Ok(lines.collect::<Result<_, _>>()?)
}

/// How many actions of a recording are so.
fn actions(lines: &[Value], is_so: impl Fn(&Value) -> bool) -> usize {
    let actions = lines.iter().filter_map(|line| line["actions"].as_array());
    actions.flatten().filter(|action| is_so(action)).count()
}

/// What is not needed is ended, where the policy keeps nothing in vain.
fn shrinks(scene: &Serving, name: &str, recording: &Path) -> Result<()> {
    let is_retired = |action: &Value| action["why"] == "idle" || action["why"] == "surplus";
    let before = actions(&recorded(recording)?, is_retired);
    let payload = json!({ "do": "sleep", "seconds": 0.3 });
    // Two at once, however often it takes until they are that.
    scene.until("one of two was one too many", |scene| {
        let both = thread::scope(|scope| {
            let ask = || scene.api().invoke(name, &payload, PATIENCE);
            [scope.spawn(ask), scope.spawn(ask)].map(thread::ScopedJoinHandle::join)
        });
        for one in both {
            one.ok().context("a panic")??.success()?;
        }
        Ok(actions(&recorded(recording)?, is_retired) > before)
    })?;
    until(
        scene,
        name,
        &json!({ "ready": 1, "busy": 0, "starting": 0 }),
    )
}

#[test]
fn a_recorded_burst_is_decided_alike_once_more_and_the_minimum_stays() -> Result<()> {
    let scene = Serving::new("pools", 2)?;
    let before = scene.node.remains()?;
    let agent = scene.agent("")?;
    let file = scene.folder().join("recording.jsonl");
    let path = file.to_str().context("a path")?;
    let mut recorder = scene.command(&["record", path, "--for", "1h"])?;
    let recorder = Guard(recorder.stderr(Stdio::null()).spawn()?);
    // Nothing is deployed before it records.
    scene.until("it records", |_| {
        Ok(file.metadata().is_ok_and(|file| file.len() > 0))
    })?;
    let mut name = String::new();
    for policy in [Some("fixed:0"), None, Some("hybrid")] {
        let keys = [
            "min_instances=1",
            "max_instances=2",
            "queue=1",
            "timeout=1h",
        ];
        let policy = policy.map(|policy| format!("policy={policy}"));
        let keys: Vec<&str> = keys.into_iter().chain(policy.as_deref()).collect();
        name = deploy(&scene, &keys)?;
        is_full(&scene, &name)?;
        is_there_again(&scene, &name)?;
        if policy.as_deref() == Some("policy=fixed:0") {
            shrinks(&scene, &name, &file)?;
        }
    }
    scene.run(&["rm", &name])?.success()?;
    scene.until("it is all recorded", |_| {
        let lines = recorded(&file)?;
        Ok(lines.iter().any(|line| line["input"] == "remove"))
    })?;
    drop(recorder);
    scene.node.settled(&before)?;
    agent.stop()?;

    let lines = recorded(&file)?;
    for kind in ["start", "serve", "refuse", "retire"] {
        let count = actions(&lines, |action| action["action"] == kind);
        ensure!(count > 0, "no {kind}");
    }
    let inputs = replay(&file, BufReader::new(File::open(&file)?))?;
    ensure!(inputs == u64::try_from(lines.len())?, "{inputs} inputs");
    let arrived = lines.iter().filter(|line| line["input"] == "arrive");
    let arrived = arrived.count();
    let mut simulate = Command::new(trace::hearth()?);
    simulate.args(["simulate", "--trace", path, "--json"]);
    let told = child::run(&mut simulate, PATIENCE)?.success()?.stdout;
    let reports = told.lines().map(serde_json::from_str);
    let reports: Vec<Value> = reports.collect::<Result<_, _>>()?;
    let names = |name: &str| reports.iter().any(|report| report["policy"] == name);
    ensure!(names("adaptive:900") && names("hybrid"), "{told}");
    ensure!(
        reports.iter().all(|report| report["requests"] == arrived),
        "not {arrived} requests: {told}"
    );
    Ok(())
}

#[test]
fn each_is_warmed_up_and_there_are_as_many_as_the_window_and_the_reserve_want() -> Result<()> {
    let scene = Serving::new("pools-window", 2)?;
    let before = scene.node.remains()?;
    let agent = scene.agent("")?;
    let warm_up = "warm_up={\"do\":\"log\"}";
    let least = ["min_instances=1", "policy=fixed:0", "timeout=1h", warm_up];
    // Each one closes after the next one has opened.
    let window = "schedule=[{ at = \"* * * * *\", for = \"2min\", instances = 2 }]";
    let name = deploy(&scene, &[&least[..], &[window]].concat())?;
    until(&scene, &name, &json!({ "ready": 2, "starting": 0 }))?;
    // Each has had its warm-up, and nobody asked for anything.
    scene.until("both wrote what they were told to", |scene| {
        let logs = scene.run(&["logs", &name])?.success()?.stdout;
        Ok(logs.matches("to standard output").count() == 2)
    })?;
    let first = scene.json(&["invoke", &name, "{}", "--json"])?;
    ensure!(first["origin"] == "warm", "{first:#}");
    ensure!(
        first["answer"]["count"] == 2,
        "after its warm-up: {first:#}"
    );
    // Without a window there is the one that is always there.
    deploy(&scene, &least)?;
    until(
        &scene,
        &name,
        &json!({ "target": 1, "ready": 1, "starting": 0 }),
    )?;
    // A reserved one is ready beside the one at work.
    deploy(
        &scene,
        &["reserved_instances=1", "policy=fixed:0", "timeout=1h"],
    )?;
    let working = asks(&scene, &name, ENDLESS)?;
    until(&scene, &name, &json!({ "busy": 1, "ready": 1 }))?;
    drop(working);
    scene.run(&["rm", &name])?.success()?;
    scene.node.settled(&before)?;
    agent.stop()
}
