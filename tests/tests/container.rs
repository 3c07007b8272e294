//! Containers of the real `runc` under the daemon.

use std::fs;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use hearth_tests::bundle::Bundle;
use hearth_tests::daemon::Daemon;
use hearth_tests::start::Start;
use hearth_tests::{clock, machine, requirement};

const SETTINGS: &str = "mode = \"sandbox\"\n";

/// Settings under which mounts, network and namespaces are looked at all the time.
const WATCHING: &str = "mode = \"sandbox\"\nwatch_share = 1.0\n";

fn of(bundle: &Bundle) -> impl Fn(&Start) -> bool + use<> {
    let (id, path) = (bundle.id.clone(), bundle.cgroup_path());
    move |start| {
        start.identity.container_id.as_deref() == Some(&*id)
            || start.identity.cgroup_path.as_deref() == Some(&*path)
    }
}

/// The only start of a container that has run under the daemon.
fn only(daemon: &Daemon, bundle: &Bundle) -> Result<Start> {
    daemon.wait_for(1, of(bundle))?;
    // Another one would have been told by now.
    thread::sleep(Duration::from_secs(1));
    let mut starts = daemon.starts(of(bundle));
    ensure!(starts.len() == 1, "{} starts: {starts:#?}", starts.len());
    let start = starts.pop().context("one start")?;
    start.is_sound()?;
    Ok(start)
}

fn is_the_container(start: &Start, bundle: &Bundle, pid: u32) -> Result<()> {
    let report = bundle.report.report()?;
    // Inside of its PID namespace the program knows itself as 1.
    start.is_process(pid, report.start_ticks)?;
    ensure!(
        start.identity.container_id.as_deref() == Some(&*bundle.id),
        "{start:#?}"
    );
    ensure!(
        start.identity.cgroup_path == Some(bundle.cgroup_path()),
        "{start:#?}"
    );
    ensure!(start.opener == "exec", "{start:#?}");
    ensure!(start.end_ns() <= report.ready_ns, "{report:?} {start:#?}");
    ensure!(start.end_ns() >= report.main_ns, "{report:?} {start:#?}");
    Ok(())
}

#[test]
fn a_container_is_cut_into_its_phases() -> Result<()> {
    requirement::root()?;
    let _machine = machine::shared()?;
    let daemon = Daemon::start(SETTINGS)?;
    let bundle = Bundle::new(&["/oracle", "listen", "/report/report.json"])?;
    let before_ns = clock::boottime_ns();
    let pid = bundle.run_whole()?;
    let start = only(&daemon, &bundle)?;
    is_the_container(&start, &bundle, pid)?;
    ensure!(start.ready == "listen", "{start:#?}");
    ensure!(
        start.begin_ns >= before_ns,
        "it began before runc ran: {start:#?}"
    );
    let names: Vec<&str> = start.phases.iter().map(|phase| &*phase.name).collect();
    ensure!(
        names.starts_with(&["create", "exec", "link"]),
        "{}",
        start.outline()
    );
    ensure!(start.phase("create").is_ok(), "{}", start.outline());
    ensure!(!start.has("wrapper"), "{}", start.outline());
    ensure!(start.identity.is_called("/oracle"), "{:?}", start.identity);
    daemon.stop()
}

#[test]
fn a_runtime_whose_own_hand_over_is_seen_still_creates() -> Result<()> {
    requirement::root()?;
    let _machine = machine::shared()?;
    let daemon = Daemon::start(SETTINGS)?;
    // From its second run on the runtime's file is enrolled: its own entry and main make marks.
    for _ in 0..6 {
        let bundle = Bundle::new(&["/oracle", "listen", "/report/report.json"])?;
        let pid = bundle.run_whole()?;
        let start = only(&daemon, &bundle)?;
        is_the_container(&start, &bundle, pid)?;
        ensure!(start.phase("create").is_ok(), "{}", start.outline());
        ensure!(!start.has("wrapper"), "{}", start.outline());
    }
    daemon.stop()
}

#[test]
fn a_shell_around_the_program_is_the_wrapper() -> Result<()> {
    requirement::root()?;
    let _machine = machine::shared()?;
    let daemon = Daemon::start(SETTINGS)?;
    let script = "/bin/true; exec /oracle listen /report/report.json";
    let bundle = Bundle::new(&["/bin/sh", "-c", script])?;
    let pid = bundle.run_whole()?;
    let start = only(&daemon, &bundle)?;
    is_the_container(&start, &bundle, pid)?;
    ensure!(start.phase("create").is_ok(), "{}", start.outline());
    ensure!(start.phase("wrapper").is_ok(), "{}", start.outline());
    ensure!(start.phase("exec").is_ok(), "{}", start.outline());
    daemon.stop()
}

#[test]
fn a_child_of_a_shell_is_who_became_ready() -> Result<()> {
    requirement::root()?;
    let _machine = machine::shared()?;
    let daemon = Daemon::start(SETTINGS)?;
    let script = "/oracle listen /report/report.json; exit $?";
    let bundle = Bundle::new(&["/bin/sh", "-c", script])?;
    let pid = bundle.run_whole()?;
    let start = only(&daemon, &bundle)?;
    ensure!(start.phase("wrapper").is_ok(), "{}", start.outline());
    ensure!(
        start.identity.pid != pid,
        "the shell did not listen: {start:#?}"
    );
    ensure!(start.identity.is_called("/oracle"), "{:?}", start.identity);
    daemon.stop()
}

#[test]
fn the_work_of_the_runtime_is_in_parts() -> Result<()> {
    requirement::root()?;
    let _machine = machine::shared()?;
    let daemon = Daemon::start(WATCHING)?;
    let bundle = Bundle::new(&["/oracle", "listen", "/report/report.json"])?;
    bundle.run_whole()?;
    let start = only(&daemon, &bundle)?;
    let create = start.phase("create")?;
    for name in ["cgroup", "namespaces", "mounts", "network"] {
        let parts = create.parts_of(name);
        ensure!(!parts.is_empty(), "no part {name}: {start:#?}");
        for part in parts {
            ensure!(
                part.end_ns <= create.end_ns,
                "{part:?} is longer than {create:?}"
            );
        }
    }
    // runc mounts at least proc, dev, its pts, shm and mqueue, sys, and the report.
    ensure!(create.parts_of("mounts").len() >= 7, "{:#?}", create.parts);
    daemon.stop()
}

#[test]
fn a_container_that_is_created_and_started_later_was_held() -> Result<()> {
    requirement::root()?;
    let _machine = machine::shared()?;
    let daemon = Daemon::start(WATCHING)?;
    let bundle = Bundle::new(&["/oracle", "listen", "/report/report.json"])?;
    // What `create` is given as standard output the container keeps: none of ours to wait for.
    let mut create = bundle.runc("create", &["--pid-file", "pid"], &[]);
    create
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null());
    create.stderr(std::process::Stdio::null());
    let status = create.status().context("runc create")?;
    ensure!(status.success(), "runc create ended with {status}");
    let created_ns = clock::boottime_ns();
    thread::sleep(Duration::from_millis(300));
    let start_ns = clock::boottime_ns();
    bundle.run("start", &[], &[])?;
    let started_ns = clock::boottime_ns();
    let pid = bundle.pid()?;
    let start = only(&daemon, &bundle)?;
    is_the_container(&start, &bundle, pid)?;
    ensure!(start.ready == "listen", "{start:#?}");
    let held = start.parts_of("held");
    ensure!(held.len() == 1, "{} held parts: {start:#?}", held.len());
    ensure!(
        held[0].begin_ns <= created_ns,
        "{held:?} began after {created_ns}"
    );
    ensure!(
        (start_ns..=started_ns).contains(&held[0].end_ns),
        "{held:?} did not end between {start_ns} and {started_ns}"
    );
    daemon.stop()
}

#[test]
fn an_exec_into_a_running_container_opens_nothing() -> Result<()> {
    requirement::root()?;
    // Alone: every start of the machine is counted here.
    let _machine = machine::quiet()?;
    let daemon = Daemon::start(SETTINGS)?;
    let script = "/oracle listen /report/report.json; sleep 60";
    let bundle = Bundle::new(&["/bin/sh", "-c", script])?;
    let mut run = bundle.runc("run", &["--detach", "--pid-file", "pid"], &[]);
    run.stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null());
    run.stderr(std::process::Stdio::null());
    let status = run.status().context("runc run")?;
    ensure!(status.success(), "runc run ended with {status}");
    only(&daemon, &bundle)?;
    let before = daemon.starts(|_| true).len();
    for _ in 0..3 {
        bundle.run("exec", &[], &["/oracle", "listen", "/report/exec.json"])?;
        bundle.run("exec", &[], &["/bin/true"])?;
        bundle.run("state", &[], &[])?;
    }
    let execs = fs::read_to_string(bundle.report.folder().join("exec.json"))?;
    ensure!(execs.lines().count() == 3, "the execs did not run");
    bundle.run("kill", &[], &["KILL"])?;
    thread::sleep(Duration::from_secs(1));
    bundle.run("delete", &["--force"], &[])?;
    thread::sleep(Duration::from_secs(2));
    let all = daemon.starts(|_| true);
    ensure!(all.len() == before, "they opened: {:#?}", &all[before..]);
    daemon.stop()
}

#[test]
fn a_container_that_cannot_start_ends_as_exited() -> Result<()> {
    requirement::root()?;
    let _machine = machine::shared()?;
    let daemon = Daemon::start(SETTINGS)?;
    let bundle = Bundle::new(&["/no-such-program"])?;
    ensure!(bundle.run("run", &[], &[]).is_err(), "it ran");
    let path = bundle.path().to_owned();
    let starts = daemon.wait_for(1, |start| start.ready == "exited")?;
    for start in &starts {
        start
            .is_sound()
            .with_context(|| path.display().to_string())?;
        ensure!(!start.has("user_init"), "{}", start.outline());
    }
    daemon.stop()
}

#[test]
fn containers_at_once_are_kept_apart() -> Result<()> {
    requirement::root()?;
    let _machine = machine::shared()?;
    let daemon = Daemon::start(SETTINGS)?;
    let bundles: Vec<Bundle> = (0..6)
        .map(|_| Bundle::new(&["/oracle", "listen", "/report/report.json"]))
        .collect::<Result<_>>()?;
    thread::scope(|scope| {
        let runs: Vec<_> = bundles
            .iter()
            .map(|b| scope.spawn(|| b.run_whole()))
            .collect();
        for run in runs {
            run.join()
                .map_err(|_| anyhow::anyhow!("a run panicked"))??;
        }
        Ok::<_, anyhow::Error>(())
    })?;
    for bundle in &bundles {
        let starts = daemon.wait_for(1, of(bundle))?;
        ensure!(starts.len() == 1, "{starts:#?}");
        starts[0].is_sound()?;
        is_the_container(&starts[0], bundle, bundle.pid()?)?;
    }
    daemon.stop()
}
