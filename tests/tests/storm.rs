//! Ten thousand starts as fast as the machine can: each observed, or counted as lost.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use hearth_tests::child;
use hearth_tests::daemon::Daemon;
use hearth_tests::metrics::Scrape;
use hearth_tests::{machine, programs, requirement};
use serde::Deserialize;

const COUNT: u64 = 10_000;

#[derive(Deserialize)]
struct Storm {
    executed: u64,
}

/// `processes` of `/proc/stat`: forks since boot, threads included.
fn forks() -> Result<u64> {
    let text = std::fs::read_to_string("/proc/stat").context("read /proc/stat")?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("processes "));
    line.context("/proc/stat counts no processes")?
        .trim()
        .parse()
        .context("parse /proc/stat")
}

/// Forks that the probe had seen when the agent last read its ledger, and how many the kernel
/// had counted before and after that: the same, on a machine where nothing else runs.
struct Forks {
    least: u64,
    seen: u64,
    most: u64,
}

fn settled(daemon: &Daemon) -> Result<Forks> {
    let least = forks()?;
    // The agent reads its ledger once a second.
    std::thread::sleep(Duration::from_secs(3));
    let labels = [("probe", "fork"), ("fate", "seen")];
    let seen = daemon
        .scrape()?
        .count("hearth_probe_events_total", &labels)?;
    Ok(Forks {
        least,
        seen,
        most: forks()?,
    })
}

/// Everything that the agent says it lost.
fn losses(scrape: &Scrape) -> Result<u64> {
    let fates = ["dropped_ring", "dropped_map", "dropped_read"];
    let dropped: u64 = fates
        .iter()
        .map(|fate| scrape.count("hearth_probe_events_total", &[("fate", fate)]))
        .sum::<Result<u64>>()?;
    let optional = |name| scrape.count(name, &[]).unwrap_or(0);
    Ok(dropped
        + optional("hearth_agent_queue_dropped_total")
        + optional("hearth_agent_starts_evicted_total"))
}

#[test]
fn every_start_of_a_storm_is_observed_or_counted() -> Result<()> {
    requirement::root()?;
    let _machine = machine::quiet()?;
    let nothing = programs::c_static("nothing")?
        .to_string_lossy()
        .into_owned();
    let storm = programs::c("storm")?;
    let daemon = Daemon::start("mode = \"process\"\n")?;
    let run = |count: u64| -> Result<u64> {
        let mut line = Command::new(&storm);
        line.args([&count.to_string(), "16", &nothing]);
        let told = child::run(&mut line, Duration::from_mins(2))?.success()?;
        Ok(serde_json::from_str::<Storm>(&told.stdout)?.executed)
    };
    let ours = |start: &hearth_tests::start::Start| {
        start.identity.exe.as_deref() == Some(&*nothing)
            || start.identity.argv0.as_deref() == Some(&*nothing)
    };
    // What the first starts make the agent allocate it keeps.
    ensure!(run(500)? == 500, "the storm did not run");
    daemon.wait_for(500, ours)?;
    let pss_before = daemon.pss()?;

    let lost_before = losses(&daemon.scrape()?)?;
    let before = settled(&daemon)?;
    let executed = run(COUNT)?;
    ensure!(executed == COUNT, "{executed} ran");
    let after = settled(&daemon)?;
    let seen = after.seen - before.seen;
    let (least, most) = (after.least - before.most, after.most - before.least);
    ensure!(least >= COUNT, "the kernel counted {least} forks");
    ensure!(
        (least..=most).contains(&seen),
        "the kernel counted {least} to {most} forks, the probe {seen}"
    );

    let wanted = usize::try_from(COUNT)? + 500;
    let observed = daemon.wait_for(wanted, ours).map(|starts| starts.len());
    let lost = losses(&daemon.scrape()?)? - lost_before;
    let observed = observed.unwrap_or_else(|_| daemon.starts(ours).len());
    let missing = wanted.saturating_sub(observed);
    ensure!(observed <= wanted, "{observed} starts of {wanted}");
    ensure!(
        missing as u64 <= lost,
        "{missing} starts are missing, {lost} counted as lost"
    );

    for start in daemon.starts(ours).iter().step_by(97) {
        start.is_sound()?;
    }
    let processes: std::collections::HashSet<_> = daemon
        .starts(ours)
        .iter()
        .map(|start| (start.identity.pid, start.identity.start_boottime_ns))
        .collect();
    ensure!(
        processes.len() == observed,
        "{} processes, {observed} starts",
        processes.len()
    );

    let pss = daemon.pss()?;
    ensure!(
        pss < pss_before + (10 << 20),
        "the agent grew from {pss_before} to {pss} bytes"
    );
    daemon.stop()
}
