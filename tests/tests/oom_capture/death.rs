//! The agent dies: of every kill that it has taken in there is a capture or a word.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;

use crate::{Scene, captures_of, names, wait_for_captures, wait_until};

/// How long after a kill the agent dies, ms; `None` is as soon as it has noted the kill.
const AFTER: [Option<u64>; 8] = [
    None,
    Some(0),
    None,
    Some(10),
    Some(20),
    Some(40),
    None,
    Some(60),
];

/// What the names of notes end with.
const NOTE: &str = ".part";

/// What there is of the kill of `pid`: a note, or a capture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trace {
    Noted,
    Kept,
}

fn trace_of(dir: &Path, pid: u32) -> Result<Option<Trace>> {
    let names = names(dir)?;
    let is = |suffix: &str| {
        let suffix = format!("-{pid}{suffix}");
        names.iter().any(|name| name.ends_with(&suffix))
    };
    // A note goes after its capture has come.
    Ok(if is(".oom") {
        Some(Trace::Kept)
    } else {
        is(NOTE).then_some(Trace::Noted)
    })
}

/// Whether the agent died while it wrote the note: then its name is all that it says.
fn is_torn(dir: &Path, pid: u32) -> Result<bool> {
    let suffix = format!("-{pid}{NOTE}");
    let names = names(dir)?;
    let Some(name) = names.iter().find(|name| name.ends_with(&suffix)) else {
        return Ok(false);
    };
    let text = fs::read(dir.join(name))?;
    Ok(serde_json::from_slice::<serde_json::Value>(&text).is_err())
}

fn wait_for_trace(dir: &Path, pid: u32) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(30);
    while trace_of(dir, pid)?.is_none() {
        ensure!(Instant::now() < deadline, "nothing came of {pid}");
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

#[test]
fn the_next_agent_accounts_for_every_kill_that_one_that_was_killed_had_taken_in() -> Result<()> {
    let scene = Scene::new("oom-killed")?;
    let dir = &scene.dir;
    let name = scene.leak.program.file_name().context("a name")?;
    // As the kernel cuts it.
    let name: String = name.to_string_lossy().chars().take(15).collect();
    let mut daemon = scene.observe("")?;
    let first = scene.kill()?;
    wait_for_captures(dir, &[first])?;
    let mut noted = 0;
    for after in AFTER {
        let pid = scene.kill()?;
        match after {
            None => wait_for_trace(dir, pid)?,
            Some(ms) => thread::sleep(Duration::from_millis(ms)),
        }
        daemon.signal(Signal::KILL)?;
        daemon.wait()?;
        let trace = trace_of(dir, pid)?;
        ensure!(after.is_some() || trace.is_some());
        let is_torn = is_torn(dir, pid)?;
        // Others of this machine can be killed, too.
        let unfinished = names(dir)?;
        let unfinished = unfinished.iter().filter(|name| name.ends_with(NOTE));
        let unfinished = unfinished.count() as u64;

        daemon = scene.observe("")?;
        wait_until(
            &daemon,
            "hearth_oom_captures_unfinished_total",
            &[],
            u64::from(trace == Some(Trace::Noted)),
        )?;
        let told = format!("{name:?} (pid {pid}), in the cgroup ");
        match trace {
            Some(Trace::Noted) => {
                noted += 1;
                let errors = daemon.errors();
                if is_torn {
                    ensure!(errors.contains(&format!("-{pid}\"")), "{errors}");
                    continue;
                }
                let line = errors.lines().find(|line| line.contains(&told));
                let line = line.with_context(|| format!("{told} is not in {errors}"))?;
                ensure!(line.contains("killed for want of memory at 20"), "{line}");
                ensure!(captures_of(dir, &[pid])?.is_empty());
            }
            Some(Trace::Kept) => ensure!(captures_of(dir, &[pid])?.len() == 1),
            None => ensure!(captures_of(dir, &[pid])?.is_empty()),
        }
        let count = daemon
            .scrape()?
            .count("hearth_oom_captures_unfinished_total", &[])?;
        ensure!(count <= unfinished, "{count} of {unfinished}");
        ensure!(trace_of(dir, pid)? != Some(Trace::Noted), "it stays");
    }
    ensure!(noted > 0, "it never died in the middle of a capture");
    ensure!(
        captures_of(dir, &[first])?.len() == 1,
        "what was kept is gone"
    );
    // Half a file, as a death in the middle of writing leaves it, bothers nobody.
    daemon.stop()?;
    let half = dir.join(".20260102T030405.000Z-1.whole");
    fs::write(&half, "HEARTHOM and no more")?;
    let daemon = scene.observe("")?;
    wait_until(&daemon, "hearth_oom_captures_unfinished_total", &[], 1)?;
    ensure!(!half.exists());
    let pid = scene.kill()?;
    wait_for_captures(dir, &[pid])?;
    daemon.stop()
}
