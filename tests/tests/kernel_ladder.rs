//! The same agent on every kernel: run on the host, and in VMs on the older kernels, where it
//! needs only `HEARTH_BIN` and `HEARTH_PROGRAMS`.

use anyhow::{Context, Result, ensure};
use hearth_tests::cgroup::Cgroup;
use hearth_tests::daemon::Daemon;
use hearth_tests::report::{Report, ReportFile};
use hearth_tests::start::{Part, Start};
use hearth_tests::trace::{self, trace};
use hearth_tests::{machine, programs, requirement};
use serde::Deserialize;
use serde_json::Value;

/// Kinds that fentry stamps where there is fentry, and what does it elsewhere while watching.
const LADDER: [(&str, &str); 6] = [
    ("exec_begin", "sys_enter"),
    ("part:cgroup", "sys_enter"),
    ("part:namespaces", "sys_enter"),
    ("part:mounts", "sys_enter"),
    ("part:network", "sys_enter"),
    ("part:held", "sys_enter"),
];

/// Whether this kernel has fentry and lets it be used: the Debian kernels of the VMs do; others
/// where nothing is locked down and functions can be traced.
fn has_fentry() -> bool {
    let release = rustix::system::uname();
    let release = release.release().to_string_lossy();
    if release.starts_with("6.1.") || release.starts_with("6.12.") {
        return true;
    }
    let lockdown = std::fs::read_to_string("/sys/kernel/security/lockdown").unwrap_or_default();
    let free = lockdown.is_empty() || lockdown.contains("[none]");
    let functions = "/sys/kernel/tracing/available_filter_functions";
    free && std::path::Path::new(functions).exists()
}

fn oracle(dynamic: bool) -> Result<String> {
    let path = if dynamic {
        programs::c("oracle")
    } else {
        programs::c_static("oracle")
    };
    Ok(path?.to_string_lossy().into_owned())
}

#[test]
fn a_start_tells_the_strategies_of_this_kernel() -> Result<()> {
    requirement::root()?;
    let _machine = machine::shared()?;
    let traced = trace(&[], &[oracle(true)?, "exit".into(), "/dev/null".into()])?;
    let start = traced.only()?;
    let fentry = has_fentry();
    for (kind, otherwise) in LADDER {
        let told = start
            .strategies
            .get(kind)
            .with_context(|| format!("no {kind}: {start:#?}"))?;
        let wanted = if fentry { "fentry" } else { otherwise };
        ensure!(told == wanted, "{kind} by {told} instead of {wanted}");
    }
    for (kind, by) in [("fork", "tp_btf"), ("exec", "tp_btf"), ("listen", "tp_btf")] {
        ensure!(
            start.strategies.get(kind).is_some_and(|told| told == by),
            "{start:#?}"
        );
    }
    Ok(())
}

#[test]
fn the_doctor_says_what_it_chose_and_why_nothing_better() -> Result<()> {
    requirement::root()?;
    let _machine = machine::shared()?;
    let told = trace::run(&["doctor", "--json"])?.success()?;
    let doctor: Value = serde_json::from_str(&told.stdout).context("doctor's JSON")?;
    let hooks = doctor["hooks"]
        .as_array()
        .with_context(|| format!("no hooks: {doctor:#}"))?;
    let fentry = has_fentry();
    for (kind, otherwise) in LADDER {
        let hook = hooks
            .iter()
            .find(|hook| hook["kind"] == kind)
            .with_context(|| format!("no {kind}: {doctor:#}"))?;
        if fentry {
            ensure!(hook["strategy"] == "fentry", "{hook:#}");
            continue;
        }
        ensure!(hook["while_watching"] == otherwise, "{hook:#}");
        let refusals = hook["refused"]
            .as_array()
            .with_context(|| format!("{hook:#}"))?;
        let reason = refusals
            .iter()
            .find(|refusal| refusal["strategy"] == "fentry")
            .and_then(|refusal| refusal["reason"].as_str())
            .with_context(|| format!("it does not say why not by fentry: {hook:#}"))?;
        ensure!(!reason.trim().is_empty(), "no reason: {hook:#}");
    }
    Ok(())
}

fn agrees_with_its_own_clock(dynamic: bool) -> Result<()> {
    requirement::root()?;
    let _machine = machine::shared()?;
    for mode in ["listen", "exit"] {
        let file = ReportFile::new()?;
        let report = file.path().to_string_lossy().into_owned();
        let traced = trace(&[], &[oracle(dynamic)?, mode.into(), report])?;
        let start = traced.only()?;
        start.hands_over(&file.report()?)?;
        ensure!(start.ready == mode, "{start:#?}");
        ensure!(start.lost == 0, "{start:#?}");
        for phase in &start.phases {
            phase.split()?;
        }
    }
    Ok(())
}

#[test]
fn a_dynamic_program_agrees_with_its_own_clock() -> Result<()> {
    agrees_with_its_own_clock(true)
}

#[test]
fn a_static_program_agrees_with_its_own_clock() -> Result<()> {
    agrees_with_its_own_clock(false)
}

/// When the `sandbox` program had done what.
#[derive(Debug, Deserialize)]
struct Sandbox {
    begin_ns: u64,
    cgroup_ns: u64,
    forked_ns: u64,
    entered_ns: u64,
    namespaces_ns: u64,
    mounts_ns: u64,
    network_ns: u64,
    pid: u32,
}

fn sandbox(file: &ReportFile, cgroup: &Cgroup) -> Result<Vec<String>> {
    let report = file.path().to_string_lossy().into_owned();
    Ok(vec![
        programs::c("sandbox")?.to_string_lossy().into_owned(),
        report.clone(),
        cgroup.directory.to_string_lossy().into_owned(),
        oracle(true)?,
        "listen".into(),
        report,
    ])
}

/// The times of the making of a sandbox, and the report of the program in it.
fn reports(file: &ReportFile) -> Result<(Sandbox, Report)> {
    Ok((file.only()?, file.report()?))
}

#[test]
fn the_work_of_making_a_sandbox_is_in_parts() -> Result<()> {
    requirement::root()?;
    let _machine = machine::shared()?;
    let file = ReportFile::new()?;
    let cgroup = Cgroup::named("parts")?;
    let traced = trace(&[], &sandbox(&file, &cgroup)?)?;
    let start = traced.only()?;
    let (times, report) = reports(&file)?;
    start.agrees(&report)?;
    let within = |name: &str, from_ns: u64, to_ns: u64| -> Result<Vec<Part>> {
        let parts = start.parts_of(name).into_iter().cloned();
        let inside: Vec<Part> = parts
            .filter(|part| part.begin_ns >= from_ns && part.end_ns <= to_ns)
            .collect();
        ensure!(
            !inside.is_empty(),
            "no {name} from {from_ns} to {to_ns}: {start:#?}"
        );
        Ok(inside)
    };
    within("cgroup", times.begin_ns, times.cgroup_ns)?;
    let own = [
        within("cgroup", times.forked_ns, times.entered_ns)?,
        within("namespaces", times.entered_ns, times.namespaces_ns)?,
        within("mounts", times.namespaces_ns, times.mounts_ns)?,
        within("network", times.mounts_ns, times.network_ns)?,
    ];
    ensure!(own[2].len() == 3, "three calls mount: {own:#?}");
    for part in own.iter().flatten() {
        ensure!(part.pid == times.pid, "{part:?} was done by {}", times.pid);
    }
    Ok(())
}

#[test]
fn a_cgroup_with_its_first_process_opens_a_start() -> Result<()> {
    requirement::root()?;
    let _machine = machine::shared()?;
    let daemon = Daemon::start("mode = \"sandbox\"\n")?;
    let file = ReportFile::new()?;
    let cgroup = Cgroup::service("opener")?;
    let line = sandbox(&file, &cgroup)?;
    let mut command = std::process::Command::new(&line[0]);
    hearth_tests::child::run(command.args(&line[1..]), std::time::Duration::from_mins(1))?
        .success()?;
    let (times, report) = reports(&file)?;
    let path = cgroup.path.clone();
    let of = move |start: &Start| start.identity.cgroup_path.as_deref() == Some(&*path);
    let starts = daemon.wait_for(1, of)?;
    ensure!(starts.len() == 1, "{starts:#?}");
    let start = &starts[0];
    start.agrees(&report)?;
    ensure!(start.opener == "cgroup", "{start:#?}");
    ensure!(start.ready == "listen", "{start:#?}");
    ensure!(
        (times.forked_ns..=times.entered_ns).contains(&start.begin_ns),
        "{times:?} {start:#?}"
    );
    ensure!(
        start.identity.unit.as_deref() == cgroup.path.strip_prefix('/'),
        "{start:#?}"
    );
    daemon.stop()
}
