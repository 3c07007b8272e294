//! What the daemon tells of cgroups that near their memory limits, and what captures have of the
//! time before the kill.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use hearth_tests::cgroup::{Cgroup, Hierarchy};
use hearth_tests::charge::Charge;
use hearth_tests::child::Guard;
use hearth_tests::daemon::Daemon;
use hearth_tests::{machine, programs, requirement, trace};
use serde_json::Value;
use tempfile::TempDir;

const MIB: u64 = 1 << 20;
const LIMIT: u64 = 48 * MIB;
/// Bytes per second.
const RATE: u64 = 4 * MIB;
const SHARE: &str = "hearth_oom_near_share";

fn limited(what: &str, bytes: u64) -> Result<Cgroup> {
    let cgroup = Cgroup::create(what)?;
    let v2 = Hierarchy::memory()?.v2;
    let file = if v2 {
        "memory.max"
    } else {
        "memory.limit_in_bytes"
    };
    fs::write(cgroup.directory.join(file), bytes.to_string()).context("set a limit")?;
    Ok(cgroup)
}

fn daemon(captures: &Path) -> Result<Daemon> {
    let captures = captures.display();
    Daemon::start(&format!(
        "signals = [\"oom\"]\n[oom]\ndir = \"{captures}\"\n[oom.recorder]\nnear = 0.6\n"
    ))
}

/// Starts the program that grows.
fn grow(cgroup: &Cgroup) -> Result<Child> {
    let grow = programs::c("grow")?;
    Command::new(&grow)
        .arg(cgroup.directory.join("cgroup.procs"))
        .arg(RATE.to_string())
        .spawn()
        .with_context(|| format!("start {}", grow.display()))
}

/// The share of its limit that is told of `cgroup` now.
fn share(daemon: &Daemon, cgroup: &Cgroup) -> Result<Option<f64>> {
    let scrape = daemon.scrape()?;
    let of = |labels: &std::collections::BTreeMap<String, String>| {
        labels.get("cgroup") == Some(&cgroup.path)
    };
    let mut samples = scrape.samples.iter();
    let found = samples.find(|sample| sample.name == SHARE && of(&sample.labels));
    let share = found.map(|sample| sample.value.parse().context("a share"));
    share.transpose()
}

fn until(what: &str, mut is_so: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + Duration::from_mins(1);
    while !is_so()? {
        ensure!(Instant::now() < deadline, "not within a minute: {what}");
        thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

/// What the capture of `pid` has of the time before.
fn before(captures: &Path, pid: u32) -> Result<Value> {
    let dir = captures.to_str().context("a path")?;
    let oom = |arguments: &[&str]| -> Result<String> {
        let line = [&["oom"], arguments, &["--json", "--dir", dir]].concat();
        Ok(trace::run(&line)?.success()?.stdout)
    };
    let mut id = None;
    until("there is a capture", || {
        if captures.exists() {
            let listed = oom(&["list"])?;
            let mut all = listed.lines().map(serde_json::from_str::<Value>);
            let one = all.find(|one| one.as_ref().is_ok_and(|one| one["pid"] == u64::from(pid)));
            id = one.and_then(Result::ok).map(|one| one["id"].clone());
        }
        Ok(id.is_some())
    })?;
    let id = id.unwrap_or_default();
    let shown: Value = serde_json::from_str(&oom(&["show", id.as_str().context("an id")?])?)?;
    let capture = shown.get("capture").unwrap_or(&shown);
    let before = capture["before"].clone();
    ensure!(
        before["value"].is_object(),
        "nothing was recorded: {before}"
    );
    Ok(before["value"].clone())
}

fn agrees(before: &Value, program: &Path) -> Result<()> {
    let growth = before["growth_bytes_per_second"]["value"].as_f64();
    let growth = growth.with_context(|| format!("no rate: {before:#}"))?;
    #[expect(clippy::cast_precision_loss, reason = "a few megabytes a second")]
    let share = growth / RATE as f64;
    ensure!((0.7..1.3).contains(&share), "{growth} bytes/s: {before:#}");
    ensure!(before["limit_bytes"]["value"] == LIMIT, "{before:#}");
    let usage = before["usage"].as_array().context("samples")?;
    ensure!(usage.len() >= 4, "{usage:?}");
    let vmas = before["vmas"]["value"]["vmas"].as_array();
    let vmas = vmas.with_context(|| format!("no mappings: {}", before["vmas"]))?;
    let program = program.display().to_string();
    let is_code = |vma: &Value| vma["name"] == program && vma["perms"] == "r-xp";
    ensure!(vmas.iter().any(is_code), "{program} is not in {vmas:#?}");
    Ok(())
}

/// Where captures of this test go: a folder that nobody else may open.
fn captures(folder: &TempDir) -> PathBuf {
    folder.path().join("captures")
}

#[test]
fn a_capture_has_what_was_seen_before_the_kill() -> Result<()> {
    requirement::root()?;
    let _machine = machine::shared()?;
    let folder = TempDir::new()?;
    let daemon = daemon(&captures(&folder))?;
    let cgroup = limited("near", LIMIT)?;
    ensure!(share(&daemon, &cgroup)?.is_none(), "it is empty");
    let mut victim = Guard(grow(&cgroup)?);
    // The most of what was told: a cgroup that was emptied by the kill is told for a while yet.
    let mut told: Option<f64> = None;
    until("the end of the program", || {
        let now = share(&daemon, &cgroup)?;
        told = told.into_iter().chain(now).reduce(f64::max);
        Ok(victim.0.try_wait()?.is_some())
    })?;
    let told = told.context("it was never told to be near")?;
    ensure!((0.5..1.05).contains(&told), "a share of {told}");
    agrees(
        &before(&captures(&folder), victim.0.id())?,
        &programs::c("grow")?,
    )?;
    // What is gone is not told any more.
    drop(cgroup);
    until("it is forgotten", || {
        let near = daemon.scrape()?;
        Ok(near.count("hearth_oom_recorder_cgroups", &[("state", "near")])? == 0)
    })?;
    daemon.stop()
}

#[test]
fn an_agent_short_of_memory_itself_records_and_captures() -> Result<()> {
    const OWN: u64 = 96 * MIB;
    // Names of the kernel's functions, which it reads once it is ready, take most of it.
    const LEFT: u64 = 16 * MIB;
    requirement::root()?;
    let _machine = machine::shared()?;
    let folder = TempDir::new()?;
    let daemon = daemon(&captures(&folder))?;
    // Of what it takes from now on, it gets a little: the rest is taken.
    let own = limited("agent", OWN)?;
    let procs = own.directory.join("cgroup.procs");
    fs::write(&procs, daemon.pid().to_string()).context("move the agent")?;
    let _taken = Charge::to(&own, OWN - LEFT)?;
    until("it is near its own limit", || {
        Ok(share(&daemon, &own)?.is_some_and(|share| share > 0.8))
    })?;
    let cgroup = limited("beside", LIMIT)?;
    let mut victim = Guard(grow(&cgroup)?);
    until("the end of the program", || {
        Ok(victim.0.try_wait()?.is_some())
    })?;
    agrees(
        &before(&captures(&folder), victim.0.id())?,
        &programs::c("grow")?,
    )?;
    ensure!(share(&daemon, &own)?.is_some(), "it still is");
    fs::write(
        own.directory.with_file_name("cgroup.procs"),
        daemon.pid().to_string(),
    )?;
    daemon.stop()
}
