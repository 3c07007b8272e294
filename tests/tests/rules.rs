//! `[[start]]` rules of the daemon.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use hearth_tests::child;
use hearth_tests::daemon::Daemon;
use hearth_tests::report::ReportFile;
use hearth_tests::start::Start;
use hearth_tests::{machine, programs, requirement};

fn run(line: &[&str]) -> Result<()> {
    child::run(
        Command::new(line[0]).args(&line[1..]),
        Duration::from_mins(1),
    )?
    .success()?;
    Ok(())
}

fn is_by(start: &Start, opener: &str) -> Result<()> {
    start.is_sound()?;
    ensure!(start.opener == opener, "{start:#?}");
    Ok(())
}

#[test]
fn a_program_with_a_rule_opens_a_start_by_its_exec() -> Result<()> {
    requirement::root()?;
    let _machine = machine::shared()?;
    let file = ReportFile::new()?;
    // A file of its own: nobody else's starts match the rule.
    let program = file.folder().join("shop-server");
    std::fs::copy(programs::c("oracle")?, &program)?;
    let program = program.to_string_lossy().into_owned();
    let report = file.path().to_string_lossy().into_owned();
    let settings =
        format!("mode = \"sandbox\"\n[[start]]\nexe = \"{program}\"\nfunction = \"shop\"\n");
    let daemon = Daemon::start(&settings)?;
    run(&[&program, "listen", &report])?;
    let told = file.report()?;
    let of = |start: &Start| start.identity.function.as_deref() == Some("shop");
    let starts = daemon.wait_for(1, of)?;
    is_by(&starts[0], "exec")?;
    starts[0].agrees(&told)?;
    ensure!(starts[0].ready == "listen", "{:#?}", starts[0]);
    // The opener is the program's own exec: nothing is created before it.
    ensure!(!starts[0].has("create"), "{}", starts[0].outline());
    ensure!(starts[0].has("exec"), "{}", starts[0].outline());
    let scrape = daemon.scrape()?;
    let labels = [("faas_name", "shop")];
    let count = scrape.count("hearth_cold_start_duration_seconds_count", &labels)?;
    ensure!(count == 1, "{count} starts of the function are counted");
    daemon.stop()
}

#[test]
fn a_rule_has_its_own_ready_and_deadline() -> Result<()> {
    requirement::root()?;
    let _machine = machine::shared()?;
    let file = ReportFile::new()?;
    let report = file.path().to_string_lossy().into_owned();
    let [late, never] = ["late-server", "never-server"].map(|name| file.folder().join(name));
    for program in [&late, &never] {
        std::fs::copy(programs::c("oracle")?, program)?;
    }
    let settings = format!(
        "mode = \"sandbox\"\n\
         [[start]]\nexe = \"{}\"\nfunction = \"late\"\nready = \"exit\"\n\
         [[start]]\nexe = \"{}\"\nfunction = \"never\"\nready = \"notify\"\ndeadline = \"100ms\"\n",
        late.display(),
        never.display()
    );
    let daemon = Daemon::start(&settings)?;
    run(&[&late.to_string_lossy(), "listen", &report])?;
    run(&[&never.to_string_lossy(), "listen", &report])?;
    let function =
        |name: &'static str| move |start: &Start| start.identity.function.as_deref() == Some(name);
    let starts = daemon.wait_for(1, function("late"))?;
    is_by(&starts[0], "exec")?;
    ensure!(starts[0].ready == "exit", "{:#?}", starts[0]);
    ensure!(
        starts[0].total_ns >= 200_000_000,
        "it stays for 200 ms: {:#?}",
        starts[0]
    );
    let starts = daemon.wait_for(1, function("never"))?;
    is_by(&starts[0], "exec")?;
    ensure!(starts[0].ready == "not_ready", "{:#?}", starts[0]);
    ensure!(starts[0].total_ns == 100_000_000, "{:#?}", starts[0]);
    daemon.stop()
}

#[test]
fn each_fork_of_a_fork_server_is_a_start() -> Result<()> {
    requirement::root()?;
    let _machine = machine::shared()?;
    let file = ReportFile::new()?;
    let program = file.folder().join("worker-server");
    std::fs::copy(programs::c("fork_server")?, &program)?;
    let program = program.to_string_lossy().into_owned();
    let report = file.path().to_string_lossy().into_owned();
    let settings = format!(
        "mode = \"sandbox\"\n\
         [[start]]\nexe = \"{program}\"\nfunction = \"worker\"\nfork_server = true\n"
    );
    let daemon = Daemon::start(&settings)?;
    run(&[&program, &report, "5"])?;
    let reports = file.reports()?;
    ensure!(reports.len() == 5, "{} children listened", reports.len());
    let of = |start: &Start| start.identity.function.as_deref() == Some("worker");
    let starts = daemon.wait_for(5, of)?;
    ensure!(starts.len() == 5, "{} starts", starts.len());
    for report in &reports {
        let start = starts
            .iter()
            .find(|start| start.identity.pid == report.pid)
            .with_context(|| format!("no start of {report:?}"))?;
        is_by(start, "fork")?;
        start.is_process(report.pid, report.start_ticks)?;
        ensure!(start.ready == "listen", "{start:#?}");
        ensure!(start.begin_ns <= report.main_ns, "{report:?} {start:#?}");
        ensure!(start.end_ns() >= report.main_ns, "{report:?} {start:#?}");
        ensure!(start.end_ns() <= report.ready_ns, "{report:?} {start:#?}");
        let names: Vec<&str> = start.phases.iter().map(|phase| &*phase.name).collect();
        ensure!(names == ["user_init"], "{}", start.outline());
    }
    daemon.stop()
}
