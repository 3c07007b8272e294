//! Where `cgroup_mutex` lies, by contending for it: found, and nothing left behind, however it ends.
//! Run on the host, and in VMs on the older kernels.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use hearth_tests::child::{self, Guard};
use hearth_tests::{machine, requirement, trace};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// The cgroup that process `pid` calibrates in, while there is one.
fn cgroup_of(pid: u32) -> Option<PathBuf> {
    let root = Path::new("/sys/fs/cgroup");
    let mounts = fs::read_dir(root).into_iter().flatten().flatten();
    let mounts = mounts.map(|entry| entry.path());
    mounts
        .chain([root.to_owned()])
        .map(|mount| mount.join(format!("hearth-calibrate-{pid}")))
        .find(|path| path.exists())
}

/// Waits until `child` has begun to calibrate; its cgroup.
fn begun(child: &Child) -> Result<PathBuf> {
    let begin = Instant::now();
    loop {
        if let Some(path) = cgroup_of(child.id()) {
            return Ok(path);
        }
        ensure!(begin.elapsed() < Duration::from_mins(2), "it never began");
        // Whoever only looks leaves the processors to those that work.
        thread::sleep(Duration::from_millis(2));
    }
}

fn symbol() -> Result<Option<u64>> {
    let symbols = fs::read_to_string("/proc/kallsyms").context("the kernel's symbols")?;
    let line = symbols.lines().find(|line| line.ends_with(" cgroup_mutex"));
    Ok(line.and_then(|line| u64::from_str_radix(line.split(' ').next()?, 16).ok()))
}

#[test]
fn what_a_killed_calibration_left_is_gone_after_the_next_start() -> Result<()> {
    requirement::root()?;
    let _machine = machine::quiet()?;
    let mut doctor = Command::new(trace::hearth()?);
    let doctor = doctor.args(["doctor", "--calibrate"]).stdout(Stdio::null());
    let mut killed = Guard(doctor.spawn()?);
    let left = begun(&killed.0)?;
    killed.0.kill()?;
    killed.0.wait()?;
    ensure!(left.exists(), "nothing was left, so that nothing is shown");
    // Whether it calibrates itself, or knows the lock by its symbol.
    let mut next = Command::new(trace::hearth()?);
    child::run(next.arg("doctor"), Duration::from_mins(3))?.success()?;
    ensure!(!left.exists(), "{} is left", left.display());
    Ok(())
}

#[test]
fn a_daemon_that_is_told_to_end_while_it_calibrates_leaves_nothing() -> Result<()> {
    requirement::root()?;
    let _machine = machine::quiet()?;
    if symbol()?.is_some() {
        // It does not calibrate here.
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let config = folder.path().join("hearth.toml");
    fs::write(
        &config,
        "signals = [\"cgroup_lock\"]\n[metrics]\nlisten = \"off\"\n",
    )?;
    let mut daemon = Command::new(trace::hearth()?);
    let daemon = daemon.args(["run", "--config"]).arg(&config);
    let mut daemon = Guard(daemon.spawn()?);
    let cgroup = begun(&daemon.0)?;
    let pid = Pid::from_child(&daemon.0);
    kill_process(pid, Signal::TERM)?;
    let status = daemon.wait(Duration::from_mins(1))?;
    ensure!(status.success(), "{status}");
    ensure!(!cgroup.exists(), "{} is left", cgroup.display());
    Ok(())
}

#[test]
fn where_cgroups_cannot_be_made_doctor_says_so() -> Result<()> {
    // The VMs have no `unshare`.
    if std::env::var_os("HEARTH_PROGRAMS").is_some() {
        return Ok(());
    }
    requirement::root()?;
    let _machine = machine::quiet()?;
    let script = r#"
        while read -r _ _ _ _ mount _ rest; do
            case "$rest" in
                *"- cgroup "* | *"- cgroup2 "*) mount -o remount,bind,ro "$mount" || exit 9 ;;
            esac
        done < /proc/self/mountinfo
        exec "$0" doctor --json --calibrate"#;
    let mut line = Command::new("unshare");
    line.args(["--mount", "/bin/sh", "-c", script])
        .arg(trace::hearth()?);
    let told = child::run(&mut line, Duration::from_mins(1))?.success()?;
    let doctor: Value = serde_json::from_str(&told.stdout).context("doctor's JSON")?;
    let why = doctor["calibration_error"].as_str().unwrap_or_default();
    ensure!(
        why.contains("Read-only file system") && why.contains("/sys/fs/cgroup"),
        "{doctor:#}"
    );
    Ok(())
}

/// Addresses of `cgroup_mutex` that doctor tells, by how they are known.
fn mutexes(arguments: &[&str]) -> Result<Vec<(String, u64)>> {
    let told = trace::run(arguments)?.success()?;
    let doctor: Value = serde_json::from_str(&told.stdout).context("doctor's JSON")?;
    let all = doctor["lock_addresses"]
        .as_array()
        .with_context(|| format!("{doctor:#}"))?;
    all.iter()
        .filter(|lock| lock["lock"] == "cgroup_mutex")
        .map(|lock| {
            let known = lock["known"].as_str().context("how it is known")?;
            let address = lock["address"].as_u64().context("its address")?;
            Ok((known.to_owned(), address))
        })
        .collect()
}

#[test]
fn calibration_finds_cgroup_mutex() -> Result<()> {
    requirement::root()?;
    let _machine = machine::quiet()?;
    let symbol = symbol()?;
    let mut found = Vec::new();
    for _ in 0..3 {
        let known = mutexes(&["doctor", "--json", "--calibrate"])?;
        println!("{known:x?}, and its symbol is at {symbol:x?}");
        let calibrated: Vec<u64> = known
            .iter()
            .filter(|(how, _)| how == "calibration")
            .map(|(_, address)| *address)
            .collect();
        ensure!(calibrated.len() == 1, "{known:x?}");
        ensure!(
            known.iter().any(|(how, _)| how == "symbol") == symbol.is_some(),
            "{known:x?}"
        );
        found.extend(calibrated);
    }
    ensure!(
        found.iter().all(|address| *address == found[0]),
        "{found:x?}"
    );
    if let Some(symbol) = symbol {
        ensure!(found[0] == symbol, "{found:x?}, not {symbol:x}");
    }
    Ok(())
}
