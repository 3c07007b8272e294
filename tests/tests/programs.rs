//! The tests' programs do what the tests that use them rely on.

use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use hearth_tests::cgroup::{Cgroup, Hierarchy};
use hearth_tests::child::{self, Finished};
use hearth_tests::programs::{self, Language};
use hearth_tests::report::{Charge, Report, ReportFile};
use hearth_tests::{clock, machine};
use serde::Deserialize;

fn run(line: &[String]) -> Result<Finished> {
    child::run(
        Command::new(&line[0]).args(&line[1..]),
        Duration::from_mins(1),
    )
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn in_order(report: &Report, before_ns: u64) -> Result<()> {
    ensure!(
        before_ns < report.main_ns,
        "{report:?} began before {before_ns}"
    );
    ensure!(
        report.main_ns < report.ready_ns,
        "{report:?} was ready before main"
    );
    ensure!(
        report.ready_ns < clock::boottime_ns(),
        "{report:?} is in the future"
    );
    let started_ns = report.start_ticks * clock::tick_ns();
    ensure!(
        started_ns <= report.ready_ns,
        "{report:?} was ready before it started"
    );
    ensure!(
        started_ns + 2 * clock::tick_ns() >= before_ns,
        "{report:?} started long before"
    );
    Ok(())
}

#[test]
fn every_oracle_tells_its_times_on_the_boot_clock() -> Result<()> {
    let _machine = machine::shared()?;
    for language in Language::ALL {
        for mode in ["listen", "exit"] {
            let file = ReportFile::new()?;
            let path = file.path();
            let path = path.to_string_lossy();
            let before_ns = clock::boottime_ns();
            run(&programs::oracle(language)?.with(&[mode, &path]))?.success()?;
            in_order(&file.report()?, before_ns)?;
        }
    }
    Ok(())
}

#[test]
fn a_cause_is_charged_for_what_it_does() -> Result<()> {
    let _machine = machine::shared()?;
    let cause = programs::c("cause")?.to_string_lossy().into_owned();
    let charge = |name: &str| -> Result<Charge> {
        let file = ReportFile::new()?;
        let path = file.path();
        run(&words(&[&cause, name, &path.to_string_lossy(), "60"]))?.success()?;
        file.only()
    };
    let of = |charge: &Charge| charge.end_ns - charge.begin_ns;
    for name in ["spin", "lock-busy"] {
        let told = charge(name)?;
        // The charge is read around the clock: what reading takes is in it.
        ensure!(
            told.run_ns >= 60_000_000 && told.run_ns <= of(&told) + 10_000_000,
            "{name}: {told:?}"
        );
    }
    for name in ["sleep", "lock-idle"] {
        let told = charge(name)?;
        ensure!(
            of(&told) >= 60_000_000 && told.run_ns < 30_000_000,
            "{name}: {told:?}"
        );
    }
    Ok(())
}

#[test]
fn odd_ways_to_run_a_program_do_run_it() -> Result<()> {
    let _machine = machine::shared()?;
    let c =
        |name: &str| -> Result<String> { Ok(programs::c(name)?.to_string_lossy().into_owned()) };
    let oracle = c("oracle")?;
    for (line, reports) in [
        (vec![c("spawn")?, "posix_spawn".into()], 1),
        (vec![c("spawn")?, "vfork".into()], 1),
        (vec![c("spawn")?, "fork".into()], 1),
        (vec![c("exec_search")?, "/dev/null".into(), "1".into()], 1),
        (vec![c("thread_exec")?], 1),
        (vec![c("memfd")?], 1),
        (vec![c("pid_reuse")?, "/dev/null".into(), c("brief")?], 1),
    ] {
        let file = ReportFile::new()?;
        let report = file.path().to_string_lossy().into_owned();
        let before_ns = clock::boottime_ns();
        let line = [line, vec![oracle.clone(), "exit".into(), report]].concat();
        run(&line)?.success()?;
        ensure!(
            file.reports()?.len() == reports,
            "{line:?} did not report once"
        );
        in_order(&file.report()?, before_ns)?;
    }
    Ok(())
}

#[test]
fn a_daemon_listens_after_its_ancestors_ended() -> Result<()> {
    #[derive(Deserialize)]
    struct Ancestor {
        ancestor: u32,
    }
    let _machine = machine::shared()?;
    let file = ReportFile::new()?;
    let path = file.path();
    let before_ns = clock::boottime_ns();
    let daemonise = programs::c("daemonise")?;
    run(&words(&[
        &daemonise.to_string_lossy(),
        &path.to_string_lossy(),
        "5",
    ]))?
    .success()?;
    let report = file.report()?;
    in_order(&report, before_ns)?;
    ensure!(
        file.only::<Ancestor>()?.ancestor != report.pid,
        "it did not fork"
    );
    Ok(())
}

#[test]
fn a_storm_counts_its_processes() -> Result<()> {
    #[derive(Deserialize)]
    struct Storm {
        executed: u64,
        forks: u64,
    }
    let _machine = machine::quiet()?;
    let storm = programs::c("storm")?;
    let nothing = programs::c_static("nothing")?;
    let line = words(&[
        &storm.to_string_lossy(),
        "500",
        "2",
        &nothing.to_string_lossy(),
    ]);
    let told: Storm = serde_json::from_str(&run(&line)?.success()?.stdout)?;
    ensure!(told.executed == 500, "{} ran", told.executed);
    ensure!(told.forks >= 500, "the kernel counted {}", told.forks);
    Ok(())
}

#[test]
fn a_sandbox_is_made_and_removed() -> Result<()> {
    let _machine = machine::shared()?;
    let file = ReportFile::new()?;
    let path = file.path();
    let cgroup = Cgroup::named("sandbox")?;
    let line = words(&[
        &programs::c("sandbox")?.to_string_lossy(),
        &path.to_string_lossy(),
        &cgroup.directory.to_string_lossy(),
        &programs::c("oracle")?.to_string_lossy(),
        "exit",
        &path.to_string_lossy(),
    ]);
    let before_ns = clock::boottime_ns();
    run(&line)?.success()?;
    in_order(&file.report()?, before_ns)?;
    ensure!(!cgroup.directory.exists(), "the cgroup remained");
    Ok(())
}

#[test]
fn own_cgroup_is_found_in_the_memory_hierarchy() -> Result<()> {
    let hierarchy = Hierarchy::memory()?;
    let path = hierarchy.path_of("self")?;
    ensure!(path.starts_with('/'), "{path}");
    let directory = hierarchy.mount.join(path.trim_start_matches('/'));
    let members = std::fs::read_to_string(directory.join("cgroup.procs"))?;
    let own = std::process::id().to_string();
    ensure!(
        members.lines().any(|pid| pid == own),
        "{} has not {own}",
        directory.display()
    );
    Ok(())
}
