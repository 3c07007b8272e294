//! What the flight recorder costs: with no limits on the node, with a thousand, and with some
//! cgroups near theirs.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use hearth_tests::cgroup::{Cgroup, Hierarchy};
use hearth_tests::charge::Charge;

use super::agent::Agent;
use super::{Better, Figure, Printer};

/// Cgroups with a limit.
const LIMITED: usize = 1000;
/// Of these, those that are near it.
const NEAR: usize = 8;
/// Limit of each, bytes.
const LIMIT: u64 = 16 << 20;
/// What those hold that are near, bytes.
const HELD: u64 = 14 << 20;
/// How long each is measured.
const TIME: Duration = Duration::from_secs(20);
/// Patience with the recorder's finding what it is to watch.
const PATIENCE: Duration = Duration::from_mins(1);
/// The recorder's thread, as the kernel has its name.
const THREAD: &str = "hearth-recorder";

/// Measures the share of one CPU that the recorder's thread takes.
pub(crate) fn measure(agent: &Path, printer: &mut Printer) -> Result<()> {
    let agent = Agent::with(agent, "signals = [\"oom\"]\n")?;
    thread::sleep(Duration::from_secs(2));
    printer.print(&share(&agent, "no cgroup with a limit")?)?;
    let cgroups = (0..LIMITED)
        .map(|_| limited())
        .collect::<Result<Vec<_>>>()?;
    wait(&agent, "watched", LIMITED)?;
    // What is far from its limit is looked at less often from the second look on.
    thread::sleep(Duration::from_secs(5));
    let name = format!("{LIMITED} cgroups with a limit");
    printer.print(&share(&agent, &name)?)?;
    let held = cgroups
        .iter()
        .take(NEAR)
        .map(|cgroup| Charge::to(cgroup, HELD));
    let held = held.collect::<Result<Vec<_>>>()?;
    wait(&agent, "near", NEAR)?;
    let name = format!("{LIMITED} cgroups with a limit, {NEAR} near it");
    printer.print(&share(&agent, &name)?)?;
    drop(held);
    agent.stop()
}

fn limited() -> Result<Cgroup> {
    let cgroup = Cgroup::create("recorder")?;
    let file = if Hierarchy::memory()?.v2 {
        "memory.max"
    } else {
        "memory.limit_in_bytes"
    };
    fs::write(cgroup.directory.join(file), LIMIT.to_string()).context("set a limit")?;
    Ok(cgroup)
}

/// Waits until the recorder has `number` cgroups in `state`.
fn wait(agent: &Agent, state: &str, number: usize) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let scrape = agent.scrape()?;
        let has = scrape.count("hearth_oom_recorder_cgroups", &[("state", state)])?;
        if has >= number as u64 {
            return Ok(());
        }
        ensure!(
            Instant::now() < deadline,
            "only {has} of {number} are {state}"
        );
        thread::sleep(Duration::from_millis(500));
    }
}

/// The share of one CPU that the thread takes, in percent.
fn share(agent: &Agent, name: &str) -> Result<Figure> {
    let (began, before) = (Instant::now(), cpu_ns(agent.pid())?);
    thread::sleep(TIME);
    let used = cpu_ns(agent.pid())?.saturating_sub(before);
    let used = Duration::from_nanos(used).as_secs_f64();
    let share = used / began.elapsed().as_secs_f64() * 100.0;
    let figure = Figure::alone(format!("CPU of the recorder, {name}"), share, "%", 1);
    Ok(figure.better(Better::Lower))
}

/// Time on a CPU of the recorder's thread.
fn cpu_ns(pid: u32) -> Result<u64> {
    let tasks = format!("/proc/{pid}/task");
    for task in fs::read_dir(&tasks).with_context(|| format!("read {tasks}"))? {
        let task = task?.path();
        let name = fs::read_to_string(task.join("comm")).unwrap_or_default();
        if name.trim_end() == THREAD {
            let text = fs::read_to_string(task.join("schedstat")).context("read its time")?;
            let time = text.split(' ').next().unwrap_or_default();
            return time.parse().context("parse its time");
        }
    }
    anyhow::bail!("the agent has no thread {THREAD}")
}
