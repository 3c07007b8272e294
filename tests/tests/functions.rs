//! Functions from `hearth fn` to the sandbox and back: the agent, the spawner and `hearth-init` as a
//! user runs them.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use hearth_tests::child::{self, Guard};
use hearth_tests::daemon::Daemon;
use hearth_tests::node::{Language, PATIENCE, layer};
use hearth_tests::serving::Serving;
use hearth_tests::trace;
use serde_json::json;

/// A node with two sandboxes parked.
fn scene() -> Result<Serving> {
    Serving::new("functions", 2)
}

#[test]
fn functions_of_every_language_answer_and_leave_nothing() -> Result<()> {
    let scene = scene()?;
    let before = scene.node.remains()?;
    let agent = scene.agent("")?;
    for language in Language::ALL {
        let name = scene.deploy(language, &[])?;
        let payload = json!({ "do": "echo", "of": name }).to_string();
        let first = scene.json(&["invoke", &name, &payload, "--json"])?;
        ensure!(first["error"].is_null(), "{first:#}");
        ensure!(first["answer"].to_string().contains("\"of\""), "{first:#}");
        ensure!(
            first["origin"] != "warm" && first["version"] == 1,
            "{first:#}"
        );
        let steps = first["steps"].as_array().context("steps")?;
        let has = |name: &str| steps.iter().any(|step| step["name"] == name);
        ensure!(has("claim") && has("init") && has("invoke"), "{first:#}");
        let again = scene.json(&["invoke", &name, &payload, "--json"])?;
        ensure!(again["origin"] == "warm", "{again:#}");
        ensure!(again["sandbox"] == first["sandbox"]);
    }
    let logs = scene.run(&["logs", "shell"])?.success()?.stdout;
    ensure!(logs.contains("began") && logs.contains("got {"), "{logs}");
    let list = scene.json(&["list", "--json"])?;
    ensure!(
        list.as_array().is_some_and(|all| all.len() == 3),
        "{list:#}"
    );
    for language in Language::ALL {
        let name = language.start()?.function.to_string();
        scene.run(&["rm", &name])?.success()?;
    }
    scene.node.settled(&before)?;
    let state = scene.state();
    for folder in ["versions", "layers"] {
        ensure!(state.join(folder).read_dir()?.next().is_none(), "{folder}");
    }
    agent.stop()
}

#[test]
fn a_function_that_fails_says_how_and_the_shell_is_told() -> Result<()> {
    let scene = scene()?;
    let before = scene.node.remains()?;
    let agent = scene.agent("")?;
    let name = scene.deploy(Language::Rust, &["--set", "init_timeout=2s"])?;
    for (payload, arguments, kind, words) in [
        ("{\"do\":\"fail\"}", &[][..], "", "as I was told"),
        (
            "{\"do\":\"exit\"}",
            &[],
            "Runtime.ExitError",
            "exit status 7",
        ),
        (
            "{\"do\":\"spin\"}",
            &["--timeout", "300ms"],
            "Sandbox.Timedout",
            "0.30 seconds",
        ),
        (
            "{\"do\":\"hog\"}",
            &[],
            "Runtime.OutOfMemory",
            "it may have 128MiB",
        ),
    ] {
        let mut all = vec!["invoke", &*name, payload];
        all.extend(arguments);
        let failed = scene.run(&all)?;
        ensure!(failed.status.code() == Some(3), "{failed:?}");
        ensure!(failed.stdout.contains(words), "{failed:?}");
        ensure!(failed.stderr.contains(kind), "{failed:?}");
    }
    for (start, kind) in [("exit", "Runtime.ExitError"), ("never", "Sandbox.Timedout")] {
        let start = format!("START={start}");
        scene.deploy(
            Language::Rust,
            &["--env", &start, "--set", "init_timeout=1s"],
        )?;
        let failed = scene.run(&["invoke", &name])?;
        ensure!(failed.status.code() == Some(3), "{failed:?}");
        ensure!(failed.stderr.contains(kind), "{failed:?}");
    }
    scene.deploy(Language::Rust, &[])?;
    let deployed = scene.run(&["deploy", &name, "--root", "/nowhere", "--", "/x"])?;
    ensure!(deployed.status.code() == Some(1) && deployed.stderr.contains("/nowhere"));
    let unknown = scene.run(&["invoke", "nobody"])?;
    ensure!(unknown.status.code() == Some(1) && unknown.stderr.contains("there are rust"));
    scene.run(&["rm", &name])?.success()?;
    scene.node.settled(&before)?;
    agent.stop()
}

#[test]
fn an_agent_that_is_killed_loses_no_answer_and_no_sandbox() -> Result<()> {
    const REQUEST: &str = "8476a536-e9f4-41e8-9739-2dfe598c3fcd";
    let scene = scene()?;
    let before = scene.node.remains()?;
    let agent = scene.agent("")?;
    let name = scene.deploy(Language::Rust, &[])?;
    scene.json(&["invoke", &name, "--json"])?;
    let payload = "{\"do\":\"sleep\",\"seconds\":3}";
    let mut waiting = scene.command(&["invoke", &name, payload, "--request", REQUEST])?;
    let waiting = waiting
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let _waiting = Guard(waiting);
    scene.until("it is at work", |scene| {
        Ok(scene.json(&["show", &name, "--json"])?["pool"]["busy"] == 1)
    })?;
    // Killed, and whoever waited with it.
    drop(agent);

    let agent = scene.agent("")?;
    scene.until("its outcome is known", |scene| {
        let line = format!("GET /v1/invocations/{REQUEST}");
        let told = scene.api().ask(&line, &[], b"", PATIENCE)?;
        ensure!(told.status != 404, "{told}");
        Ok(told.status == 200 && told.json()? == "slept")
    })?;
    let next = scene.json(&["invoke", &name, "--json"])?;
    ensure!(
        next["origin"] == "warm",
        "the sandbox is still used: {next:#}"
    );
    scene.run(&["rm", &name])?.success()?;
    scene.node.settled(&before)?;
    agent.stop()
}

#[test]
fn who_is_interrupted_cancels_and_what_is_removed_ends_at_once() -> Result<()> {
    let scene = scene()?;
    let before = scene.node.remains()?;
    let agent = scene.agent("")?;
    // None but those that somebody asks for: the default policy may have another one ready.
    let more = ["--timeout", "1h", "--set", "policy=fixed:0"];
    let name = scene.deploy(Language::Rust, &more)?;
    let busy = |scene: &Serving, count: u32| -> Result<bool> {
        let sandboxes = scene.node.spawner()?.list()?.len();
        let shown = scene.json(&["show", &name, "--json"])?;
        Ok(shown["pool"]["busy"] == count && sandboxes == usize::try_from(count)?)
    };
    let spin = || -> Result<Guard> {
        let mut command = scene.command(&["invoke", &name, "{\"do\":\"spin\"}"])?;
        let child = command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        Ok(Guard(child))
    };
    let waiting = spin()?;
    scene.until("it is at work", |scene| busy(scene, 1))?;
    drop(waiting);
    scene.until("it is cancelled", |scene| busy(scene, 0))?;
    let mut waiting = spin()?;
    scene.until("it is at work", |scene| busy(scene, 1))?;
    scene.run(&["rm", &name])?.success()?;
    ensure!(
        waiting.wait(PATIENCE)?.code() == Some(3),
        "it was cancelled"
    );
    scene.node.settled(&before)?;
    agent.stop()
}

#[test]
fn a_second_agent_leaves_the_sandboxes_of_the_first_alone() -> Result<()> {
    let scene = scene()?;
    let agent = scene.agent("")?;
    let name = scene.deploy(Language::Rust, &[])?;
    scene.run(&["invoke", &name, "{}"])?.success()?;
    let folder = tempfile::Builder::new()
        .prefix("hearth-functions-")
        .tempdir()?;
    let settings = format!(
        "signals = [\"cold_start\"]\n[functions]\nenabled = true\nstate_dir = \"{}\"\n\
         api_socket = \"{}\"\nspawner_dir = \"{}\"\n",
        folder.path().join("state").display(),
        folder.path().join("api.sock").display(),
        scene.node.places().directory().display(),
    );
    let second = Daemon::start(&settings)?;
    let socket = folder.path().join("api.sock");
    let ask = |arguments: &[&str]| {
        let mut command = Command::new(trace::hearth()?);
        command
            .arg("fn")
            .arg("--socket")
            .arg(&socket)
            .args(arguments);
        child::run(&mut command, PATIENCE)
    };
    let layer = layer("shell")?.display().to_string();
    ask(&["deploy", "other", "--root", &layer, "--", "/bootstrap"])?.success()?;
    let told = ask(&["invoke", "other", "{}"])?;
    ensure!(
        told.stderr.contains("functions.spawner_dir"),
        "{}",
        told.stderr
    );
    second.stop()?;
    let warm = scene.json(&["invoke", &name, "{}", "--json"])?;
    assert_eq!(warm["origin"], "warm", "{warm}");
    agent.stop()?;
    Ok(())
}

#[test]
fn each_start_of_one_program_costs_the_agent_no_more_probes() -> Result<()> {
    let scene = scene()?;
    let agent = scene.agent("")?;
    let name = scene.deploy(Language::Rust, &[])?;
    let exit = json!({ "do": "exit" }).to_string();
    let descriptors =
        || -> Result<usize> { Ok(std::fs::read_dir(format!("/proc/{}/fd", agent.pid()))?.count()) };
    // What there is to enrol is enrolled by then.
    for _ in 0..4 {
        scene.run(&["invoke", &name, &exit])?;
    }
    let before = descriptors()?;
    for _ in 0..20 {
        scene.run(&["invoke", &name, &exit])?;
    }
    let after = descriptors()?;
    ensure!(after <= before + 6, "{before} descriptors, then {after}");
    agent.stop()?;
    Ok(())
}

#[test]
fn functions_in_the_file_are_deployed_and_a_missing_spawner_is_named() -> Result<()> {
    let mut scene = scene()?;
    let shell = layer("shell")?;
    let named = format!(
        "[functions.named]\nroot = [\"{}\"]\ncommand = [\"/bootstrap\"]\n",
        shell.display()
    );
    scene.node.kill_spawner()?;
    let agent = scene.agent(&named)?;
    scene.until("it is deployed", |scene| {
        Ok(scene.run(&["show", "named"])?.status.success())
    })?;
    let refused = scene.run(&["invoke", "named"])?;
    ensure!(refused.status.code() == Some(1), "{refused:?}");
    ensure!(
        refused.stderr.contains("start hearth-spawner"),
        "{refused:?}"
    );
    scene.until("the agent says so", |_| {
        Ok(agent.errors().contains("no function can run"))
    })?;
    scene.node.start_spawner(1)?;
    scene.json(&["invoke", "named", "--json"])?;
    agent.stop()?;
    // The same again is the same version.
    let agent = scene.agent(&named)?;
    ensure!(scene.json(&["show", "named", "--json"])?["version"] == 1);
    scene.run(&["rm", "named"])?.success()?;
    agent.stop()
}
