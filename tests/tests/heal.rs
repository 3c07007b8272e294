//! Functions that fail, and what is done about that: as a user sees it, in the answers, in the
//! cgroup's files, in the audit and at a collector.

use anyhow::{Context, Result, ensure};
use hearth_tests::api::Reply;
use hearth_tests::cgroup;
use hearth_tests::child::{self, Finished};
use hearth_tests::collector::{Addresses, Collector, Item};
use hearth_tests::node::{Language, PATIENCE};
use hearth_tests::serving::Serving;
use hearth_tests::trace;
use rustix::process::{Pid, Signal, kill_process};
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};

const MIB: u64 = 1 << 20;

/// A node whose function of 64 MiB is deployed with these settings.
fn serving(what: &str) -> Result<Serving> {
    Serving::new(what, 2)
}

fn deploy(serving: &Serving, more: &[&str]) -> Result<String> {
    let settings = ["--memory", "64MiB", "--set", "writable=8MiB"];
    serving.deploy(Language::Rust, &[&settings, more].concat())
}

fn invoke(serving: &Serving, function: &str, payload: &Value) -> Result<Reply> {
    serving.api().invoke(function, payload, PATIENCE)
}

/// The answer, which must be one.
fn answer(reply: Reply) -> Result<Value> {
    let reply = reply.success()?;
    ensure!(reply.header("hearth-function-error").is_none(), "{reply}");
    reply.json()
}

/// The kind of the failure, which must be one.
fn failure(reply: Reply) -> Result<String> {
    let reply = reply.success()?;
    let kind = reply.header("hearth-function-error");
    Ok(kind
        .with_context(|| format!("an answer: {reply}"))?
        .to_owned())
}

/// `hearth heal log …` of the audit.
fn log(serving: &Serving, arguments: &[&str]) -> Result<Finished> {
    let mut command = std::process::Command::new(trace::hearth()?);
    command.args(["heal", "log", "--dir"]).arg(serving.audit());
    child::run(command.args(arguments), PATIENCE)
}

/// Lines of the audit of one kind.
fn lines(serving: &Serving, entry: &str) -> Result<Vec<Value>> {
    let told = log(serving, &["--json"])?.success()?.stdout;
    let lines = told.lines().map(serde_json::from_str);
    let lines: Vec<Value> = lines.collect::<Result<_, _>>()?;
    Ok(lines
        .into_iter()
        .filter(|line| line["entry"] == entry)
        .collect())
}

/// Waits for that many outcomes; the words for what was done, and for what came of it.
fn outcomes(serving: &Serving, count: usize) -> Result<Vec<(String, String)>> {
    serving.until("outcomes", |serving| {
        Ok(lines(serving, "outcome")?.len() >= count)
    })?;
    let word = |line: &Value, key: &str| line[key].as_str().unwrap_or_default().to_owned();
    let outcomes = lines(serving, "outcome")?;
    let words = outcomes.iter();
    Ok(words
        .map(|line| (word(line, "action"), word(line, "outcome")))
        .collect())
}

fn pair(action: &str, outcome: &str) -> (String, String) {
    (action.to_owned(), outcome.to_owned())
}

/// The audit is as it was written, says the agent's own command.
fn verified(serving: &Serving) -> Result<()> {
    log(serving, &["--verify"])?.success()?;
    Ok(())
}

/// The memory limit of each sandbox, as the kernel has it.
fn limits(serving: &Serving) -> Result<Vec<u64>> {
    let sandboxes = serving.api().get("/v1/sandboxes")?;
    let sandboxes = sandboxes.as_array().context("sandboxes")?;
    let limits = sandboxes.iter().map(|sandbox| limit_of(serving, sandbox));
    limits.collect()
}

/// That of the only one.
fn limit(serving: &Serving) -> Result<u64> {
    match limits(serving)?[..] {
        [limit] => Ok(limit),
        ref limits => anyhow::bail!("not one sandbox: {limits:?}"),
    }
}

fn limit_of(serving: &Serving, sandbox: &Value) -> Result<u64> {
    let cgroup_name = serving.node.name();
    let slot = sandbox["slot"].as_str().context("a slot")?;
    for mount in cgroup::mounts()? {
        for file in ["memory.limit_in_bytes", "memory.max"] {
            let path = mount.join(cgroup_name).join(slot).join(file);
            if let Ok(text) = std::fs::read_to_string(path) {
                return Ok(text.trim().parse()?);
            }
        }
    }
    anyhow::bail!("no limit of {slot}")
}

#[test]
fn out_of_memory_it_comes_back_with_more_and_the_request_is_answered() -> Result<()> {
    let serving = serving("heal-oom")?;
    let addresses = Addresses::free()?;
    let collector = Collector::start(addresses, &[])?;
    let otlp = format!(
        "[otlp]\ninterval = \"1s\"\nendpoint = \"http://{}\"",
        addresses.grpc
    );
    let daemon = serving.watching(&["cold_start", "oom"], &otlp)?;
    let more = ["heal=act", "idempotent=true", "memory_max=256MiB"];
    let more: Vec<&str> = more.iter().flat_map(|one| ["--set", one]).collect();
    let function = deploy(&serving, &more)?;
    answer(invoke(&serving, &function, &json!({ "n": 1 }))?)?;
    ensure!(limit(&serving)? == 64 * MIB);
    // It fits into what it gets then, and not into what it has.
    let leak = json!({ "do": "leak", "mib": 90, "n": 2 });
    let answered = answer(invoke(&serving, &function, &leak)?)?;
    ensure!(
        answered["echo"] == leak && answered["count"] == 1,
        "{answered}"
    );
    let expected = [pair("raise", "done"), pair("replay", "done")];
    let mut done = outcomes(&serving, 2)?;
    done.sort();
    ensure!(done == expected, "{done:?}");

    let [decision] = &lines(&serving, "decision")?[..] else {
        anyhow::bail!("one decision");
    };
    ensure!(decision["fault"] == "oom_killed", "{decision}");
    let raised = decision["actions"][0]["to_bytes"]
        .as_u64()
        .context("bytes")?;
    ensure!(raised > 150 * MIB && raised <= 164 * MIB, "{decision}");
    ensure!(limit(&serving)? == raised);
    let outcome = lines(&serving, "outcome")?;
    ensure!(
        outcome.iter().any(|line| line["memory_bytes"] == raised),
        "not as it was read back: {outcome:#?}"
    );
    verified(&serving)?;

    // At the collector: a span with links to the start that followed, and to the one of the capture.
    // Spans, and the log record, come each for itself.
    let named = |span: &&Item| span.fields.get("Name").is_some_and(|name| name == "heal");
    let started = |span: &&Item| span.has("hearth.opener", "claim");
    let told = |log: &&Item| log.has("hearth.heal.fault", "oom_killed");
    let got = collector.wait_for(|got| {
        got.spans.iter().any(|span| named(&span))
            && got.spans.iter().filter(started).count() >= 2
            && got.logs.iter().any(|log| told(&log))
    })?;
    let heal = got.logs.iter().find(told).context("a log record")?;
    let capture = heal.attribute("hearth.oom.capture")?;
    let starts = got.spans.iter().filter(started);
    let starts: Vec<&str> = starts
        .map(|span| span.field("Trace ID"))
        .collect::<Result<_>>()?;
    ensure!(starts.len() >= 2, "{starts:?}");
    let text = collector.text()?;
    let healed = text
        .split("Span #")
        .find(|span| span.contains("hearth.heal.fault") && span.contains("heal"))
        .context("the span")?;
    for start in &starts {
        ensure!(healed.contains(start), "no link to {start}: {healed}");
    }
    // The capture is named by the span, and by the link to it.
    let name = format!("hearth.oom.capture: Str({capture})");
    let named = healed.matches(&name);
    ensure!(
        named.count() == 2 && healed.contains("hearth.link: Str(oom)"),
        "no link to capture {capture}: {healed}"
    );
    let told = daemon.scrape()?.samples;
    let counted = told
        .iter()
        .any(|one| one.name == "hearth_heal_actions_total");
    ensure!(counted, "not counted: {told:#?}");
    // What was raised stays so, and another version has what it says.
    daemon.stop()?;
    let daemon = serving.agent("")?;
    answer(invoke(&serving, &function, &leak)?)?;
    let decisions = lines(&serving, "decision")?;
    let last = decisions.last().context("a decision")?;
    ensure!(last["actions"][0]["from_bytes"] == raised, "{last}");
    ensure!(limit(&serving)? == 256 * MIB, "by its memory_max");
    deploy(&serving, &["--set", "heal=act", "--set", "timeout=20s"])?;
    answer(invoke(&serving, &function, &json!({ "n": 3 }))?)?;
    ensure!(limit(&serving)? == 64 * MIB);
    daemon.stop()
}

#[test]
fn spares_with_the_limit_that_was_too_low_make_way_before_the_request_is_done_again() -> Result<()>
{
    let serving = serving("heal-spare")?;
    let _daemon = serving.agent("")?;
    let more = [
        "heal=act",
        "idempotent=true",
        "memory_max=256MiB",
        "min_instances=3",
    ];
    let more: Vec<&str> = more.iter().flat_map(|one| ["--set", one]).collect();
    let function = deploy(&serving, &more)?;
    serving.until("three", |serving| Ok(limits(serving)? == [64 * MIB; 3]))?;
    let leak = json!({ "do": "leak", "mib": 90 });
    let answered = answer(invoke(&serving, &function, &leak)?)?;
    ensure!(answered["count"] == 1, "{answered}");
    // The request has killed one sandbox, and no other.
    let [decision] = &lines(&serving, "decision")?[..] else {
        anyhow::bail!("one decision");
    };
    let raised = decision["actions"][0]["to_bytes"].as_u64();
    let raised = raised.context("bytes")?;
    ensure!(raised > 64 * MIB, "{decision}");
    serving.until("three with more", |serving| {
        Ok(limits(serving)? == [raised; 3])
    })
}

#[test]
fn observe_and_dry_run_change_nothing_and_say_what_they_would() -> Result<()> {
    let serving = serving("heal-observe")?;
    let daemon = serving.agent("")?;
    for (mode, word) in [("observe", "would"), ("dry-run", "dry_run")] {
        let heal = format!("heal={mode}");
        let function = deploy(&serving, &["--set", &heal, "--set", "idempotent=true"])?;
        let leak = json!({ "do": "leak", "mib": 90 });
        let kind = failure(invoke(&serving, &function, &leak)?)?;
        ensure!(kind == "Runtime.OutOfMemory", "{kind}");
        let done = outcomes(&serving, 2)?;
        let expected = [pair("raise", word), pair("replay", word)];
        ensure!(done[done.len() - 2..] == expected, "{done:?}");
        answer(invoke(&serving, &function, &json!({ "n": 1 }))?)?;
        ensure!(limit(&serving)? == 64 * MIB);
    }
    let table = log(&serving, &[])?.success()?.stdout;
    ensure!(table.contains("would have been done"), "{table}");
    verified(&serving)?;
    daemon.stop()
}

#[test]
fn a_request_is_done_again_only_where_that_is_declared_and_a_crash_loop_is_left_alone() -> Result<()>
{
    let serving = serving("heal-crash")?;
    let daemon = serving.agent("")?;
    let function = deploy(&serving, &["--set", "heal=act"])?;
    let crash = json!({ "do": "act", "then": "exit", "nonce": 1 });
    let kind = failure(invoke(&serving, &function, &crash)?)?;
    ensure!(kind == "Runtime.ExitError", "{kind}");
    ensure!(outcomes(&serving, 1)? == [pair("replace", "done")]);
    let refused = lines(&serving, "decision")?[0]["refused"].to_string();
    ensure!(refused.contains("idempotent"), "{refused}");
    // Brought back without a request: the next one finds it.
    answer(invoke(&serving, &function, &json!({ "n": 1 }))?)?;

    // The second failure in a row: it is left alone, and who asks in vain is told for how long.
    failure(invoke(&serving, &function, &crash)?)?;
    let decisions = lines(&serving, "decision")?;
    let last = decisions.last().context("a decision")?;
    let after = last["actions"][0]["after_ms"].as_u64().context("a pause")?;
    ensure!((9_000..=10_000).contains(&after), "{last}");
    ensure!(outcomes(&serving, 2)?[1] == pair("replace", "done"));
    verified(&serving)?;
    daemon.stop()
}

#[test]
fn what_hangs_and_what_is_killed_while_it_waits_is_there_again() -> Result<()> {
    let serving = serving("heal-hang")?;
    let daemon = serving.agent("")?;
    let function = deploy(&serving, &["--set", "heal=act", "--set", "timeout=1s"])?;
    let kind = failure(invoke(&serving, &function, &json!({ "do": "hang" }))?)?;
    ensure!(kind == "Sandbox.Timedout", "{kind}");
    ensure!(outcomes(&serving, 1)? == [pair("replace", "done")]);
    answer(invoke(&serving, &function, &json!({ "n": 1 }))?)?;

    // Nobody asks for anything: its place is taken all the same.
    let sandbox = || -> Result<Value> { Ok(serving.api().get("/v1/sandboxes")?[0].clone()) };
    let lost = sandbox()?;
    let pid = lost["pid"].as_i64().context("a pid")?;
    let pid = Pid::from_raw(i32::try_from(pid)?).context("a pid")?;
    kill_process(pid, Signal::KILL)?;
    ensure!(outcomes(&serving, 2)?[1] == pair("replace", "done"));
    let faults = lines(&serving, "decision")?;
    let words: Vec<_> = faults.iter().map(|line| &line["fault"]).collect();
    ensure!(words == ["hung", "killed"], "{faults:#?}");
    ensure!(faults[1]["actions"][0]["after_ms"] == 0, "{faults:#?}");
    ensure!(sandbox()?["id"] != lost["id"], "{lost}");
    answer(invoke(&serving, &function, &json!({ "n": 2 }))?)?;
    verified(&serving)?;
    daemon.stop()
}

#[test]
fn an_agent_that_is_killed_in_between_leaves_it_unknown_and_goes_on() -> Result<()> {
    let serving = serving("heal-killed")?;
    let mut daemon = serving.agent("")?;
    let function = deploy(&serving, &["--set", "heal=act"])?;
    let crash = json!({ "do": "act", "then": "exit", "nonce": 1 });
    for _ in 0..2 {
        failure(invoke(&serving, &function, &crash)?)?;
    }
    // The second one waits for its pause.
    serving.until("two decisions", |serving| {
        Ok(lines(serving, "decision")?.len() == 2)
    })?;
    daemon.signal(Signal::KILL)?;
    daemon.wait()?;
    verified(&serving)?;
    let decisions = lines(&serving, "decision")?;
    let until = decisions[1]["failing"]["until_boottime_ns"].as_u64();
    let until = until.context("a pause")?;
    let daemon = serving.agent("")?;
    // Its pause goes on, and whoever asks waits for the rest of it.
    answer(invoke(&serving, &function, &json!({ "n": 1 }))?)?;
    let now = clock_gettime(ClockId::Boottime);
    let now = u64::try_from(now.tv_sec)? * 1_000_000_000 + u64::try_from(now.tv_nsec)?;
    ensure!(
        now >= until,
        "answered {} ms too early",
        (until - now) / 1_000_000
    );
    // And the next one is what comes after it.
    failure(invoke(&serving, &function, &crash)?)?;
    let decisions = lines(&serving, "decision")?;
    let last = decisions.last().context("a decision")?;
    ensure!(last["failing"]["failures"] == 3, "{last}");
    let after = last["actions"][0]["after_ms"].as_u64().context("a pause")?;
    ensure!((19_000..=20_000).contains(&after), "{last}");
    let unknown = lines(&serving, "outcome")?;
    let unknown = unknown.iter().find(|line| line["outcome"] == "unknown");
    ensure!(unknown.context("an outcome")?["why"] == "the agent ended");
    verified(&serving)?;
    // Somebody changes a line.
    daemon.stop()?;
    let path = serving.audit().join("audit.jsonl");
    let text = std::fs::read_to_string(&path)?;
    std::fs::write(&path, text.replacen("crashed", "killed!", 1))?;
    let changed = log(&serving, &["--verify"])?;
    ensure!(!changed.status.success(), "{changed:?}");
    Ok(())
}
