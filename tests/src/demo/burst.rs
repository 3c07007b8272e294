//! A burst: the pool grows, and shrinks when nobody asks any more.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};
use serde_json::{Value, json};

use super::stage::{Stage, TIME};

const NAME: &str = "shop";
/// Who asks at once, how often each, and how long the function works on it, in seconds.
const CLIENTS: usize = 8;
const EACH: usize = 12;
const WORK: f64 = 0.25;
/// How long an idle sandbox is kept, by its policy.
const KEPT: &str = "fixed:25";

/// What it has of sandboxes.
fn counts(sandboxes: &[Value]) -> (usize, usize) {
    let idle = |sandbox: &&Value| sandbox["state"] == "idle";
    let idle = sandboxes.iter().filter(idle).count();
    (idle, sandboxes.len() - idle)
}

fn line(began: Instant, (idle, busy): (usize, usize)) -> String {
    format!(
        "{:5.1} s  {:<9}{busy} at work, {idle} idle",
        began.elapsed().as_secs_f64(),
        format!("{}{}", "#".repeat(busy), "-".repeat(idle)),
    )
}

pub(super) fn act(stage: &mut Stage<'_>) -> Result<()> {
    stage.act("A burst: the pool grows")?;
    stage.does(format!(
        "deploy `{NAME}`: at least one sandbox, at most {CLIENTS}, policy {KEPT}"
    ));
    stage.deploy(
        NAME,
        json!({ "min_instances": 1, "max_instances": CLIENTS, "policy": KEPT }),
    )?;
    stage.until("one is kept ready", || {
        Ok(counts(&stage.sandboxes(NAME)?) == (1, 0))
    })?;
    let first = stage.invoke(NAME, &json!({ "do": "echo" }))?.success()?;
    ensure!(
        first.header("hearth-sandbox-origin") == Some("warm"),
        "{first}"
    );
    stage.sees("one is ready before anybody asks, and the first request finds it");
    stage.does(format!(
        "{CLIENTS} clients ask at once, {EACH} times each; it works {:.0} ms on each",
        WORK * 1e3
    ));
    let began = Instant::now();
    let right = AtomicUsize::new(0);
    let mut most = 0;
    thread::scope(|scope| -> Result<()> {
        let api = stage.api();
        let client = |client: usize| {
            let (api, right, stop) = (api.clone(), &right, stage.stop);
            scope.spawn(move || -> Result<()> {
                for nth in 0..EACH {
                    if stop.load(Ordering::Relaxed) {
                        return Ok(());
                    }
                    let nonce = format!("{client}-{nth}");
                    let payload = json!({ "do": "act", "nonce": nonce, "seconds": WORK });
                    let reply = api.invoke(NAME, &payload, TIME)?.success()?;
                    ensure!(reply.json()?["echo"] == payload, "{reply}");
                    right.fetch_add(1, Ordering::Relaxed);
                }
                Ok(())
            })
        };
        let clients: Vec<_> = (0..CLIENTS).map(client).collect();
        let mut last = (0, 0);
        while !clients.iter().all(ScopedJoinHandle::is_finished) {
            let now = counts(&stage.sandboxes(NAME)?);
            if now.0 + now.1 != last.0 + last.1 {
                stage.sees(line(began, now));
                last = now;
            }
            most = most.max(now.0 + now.1);
            thread::sleep(Duration::from_millis(20));
        }
        let mut ended = clients.into_iter().map(ScopedJoinHandle::join);
        ended.try_for_each(|client| client.map_err(|_| anyhow!("a client panicked"))?)
    })?;
    stage.goes_on()?;
    let right = right.into_inner();
    stage.sees(format!("{right} of {} answers are right", CLIENTS * EACH));
    ensure!(right == CLIENTS * EACH, "only {right} answers are right");
    ensure!(most > 1, "the pool did not grow");
    let claims = |result| {
        let labels = [("faas_name", NAME), ("result", result)];
        stage.count("hearth_pool_claims_total", &labels)
    };
    // They are counted a moment later.
    let mut told = [0; 4];
    stage.until("every request is counted", || {
        for (told, word) in told.iter_mut().zip(["hit", "queued", "miss", "refused"]) {
            *told = claims(word)?;
        }
        let all: u64 = told.iter().sum();
        Ok(all > right as u64)
    })?;
    let [hits, queued, misses, refused] = told;
    stage.sees(format!(
        "found one idle: {hits}, waited for one at work: {queued}, for a start: {misses}, \
         refused: {refused}"
    ));
    ensure!(refused == 0, "{refused} were refused");
    Ok(())
}

pub(super) fn pool_shrinks(stage: &mut Stage<'_>) -> Result<()> {
    stage.act("Nobody asks: the pool shrinks")?;
    let began = Instant::now();
    let mut last = None;
    loop {
        let now = counts(&stage.sandboxes(NAME)?);
        if last != Some(now) {
            stage.sees(line(began, now));
            last = Some(now);
        }
        if now == (1, 0) {
            break;
        }
        stage.goes_on()?;
        ensure!(began.elapsed() < crate::node::PATIENCE, "it did not shrink");
        thread::sleep(Duration::from_millis(50));
    }
    let idle = [("faas_name", NAME), ("why", "idle")];
    let mut retired = 0;
    stage.until("they are counted as idle", || {
        retired = stage.count("hearth_pool_retired_total", &idle)?;
        Ok(retired > 0)
    })?;
    stage.sees(format!(
        "{retired} were retired as idle; the one that `{NAME}` always has is left"
    ));
    Ok(())
}
