//! A function that leaks is killed for want of memory, and comes back with more.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::stage::Stage;

const NAME: &str = "leaky";
/// MiB that each request leaks, and how many requests there are at most.
const LEAK: u64 = 8;
const MOST: usize = 40;

/// Its only sandbox: the id, the file with the limit, and the limit in bytes.
fn limit(stage: &Stage<'_>) -> Result<(Value, String, u64)> {
    let mut found = None;
    stage.until("it has a sandbox", || {
        found = stage.sandboxes(NAME)?.pop();
        Ok(found.is_some())
    })?;
    let sandbox = found.context("no sandbox")?;
    let slot = sandbox["slot"].as_str().context("no slot")?;
    let (file, bytes) = stage.limit(slot)?;
    Ok((sandbox["id"].clone(), file.display().to_string(), bytes))
}

fn mib(bytes: u64) -> String {
    format!("{} MiB", bytes >> 20)
}

pub(super) fn act(stage: &mut Stage<'_>) -> Result<()> {
    stage.act("A leak: killed for want of memory, captured, brought back with more")?;
    stage.does(format!(
        "deploy `{NAME}`: 64 MiB, heal = \"act\", memory_max = \"256MiB\", idempotent"
    ));
    stage.deploy(
        NAME,
        json!({
            "max_instances": 1, "policy": "fixed:600",
            "heal": "act", "memory_max": "256MiB", "idempotent": true,
        }),
    )?;
    stage.does(format!(
        "ask it again and again: each time it leaks {LEAK} MiB"
    ));
    let leak = json!({ "do": "leak", "mib": LEAK });
    let first = stage.invoke(NAME, &leak)?.success()?.json()?;
    ensure!(first["count"] == 1, "{first}");
    let (before, file, limit_before) = limit(stage)?;
    stage.sees(format!("{file} says {}", mib(limit_before)));
    let mut last = 1;
    let mut again = None;
    for _ in 1..MOST {
        let reply = stage.invoke(NAME, &leak)?;
        let told = reply.json()?;
        let count = told["count"].as_u64();
        let count = count.with_context(|| format!("no answer: {reply}"))?;
        if count <= last {
            again = Some(reply);
            break;
        }
        last = count;
    }
    let again = again.with_context(|| format!("{MOST} requests, and nobody was killed"))?;
    stage.sees(format!(
        "request {} was killed with its sandbox at {} MiB, given to another one, and answered",
        last + 1,
        last * LEAK
    ));
    ensure!(again.json()?["echo"] == leak, "{again}");
    let (after, file, limit_after) = limit(stage)?;
    ensure!(before != after, "the sandbox is the same");
    stage.sees(format!("{file} says {}", mib(limit_after)));
    ensure!(limit_after > limit_before, "the limit is the same");
    let mut captures = Vec::new();
    stage.until("the kill is captured", || {
        captures = stage.told(&["oom", "list", "--json"])?;
        Ok(!captures.is_empty())
    })?;
    let capture: Value = serde_json::from_str(captures.first().context("no capture")?)?;
    stage.does("hearth oom list");
    stage.sees(format!(
        "{}: {} in {}, limit {}",
        capture["id"].as_str().unwrap_or("?"),
        capture["name"].as_str().unwrap_or("?"),
        capture["cgroup"].as_str().unwrap_or("?"),
        capture["limit_bytes"]
            .as_u64()
            .map_or_else(|| "?".to_owned(), mib),
    ));
    ensure!(capture["limit_bytes"] == limit_before, "{capture:#}");
    stage.does("hearth heal log");
    for line in stage.told(&["heal", "log"])? {
        stage.sees(line);
    }
    Ok(())
}
