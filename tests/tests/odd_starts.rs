//! Programs that start in odd ways: the start is still that of the process that becomes ready.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use hearth_tests::report::ReportFile;
use hearth_tests::start::Start;
use hearth_tests::trace::{Traced, trace};
use hearth_tests::{machine, programs, requirement};
use serde::Deserialize;

fn c(name: &str) -> Result<String> {
    Ok(programs::c(name)?.to_string_lossy().into_owned())
}

/// Traces `before` with the listening C oracle's command line after it; the start must be
/// that of the oracle.
fn around_oracle(before: &[String], file: &ReportFile) -> Result<Traced> {
    let report = file.path().to_string_lossy().into_owned();
    let oracle = [c("oracle")?, "listen".into(), report];
    let traced = trace(&[], &[before, &oracle].concat())?;
    let start = traced.only()?;
    ensure!(start.ready == "listen", "{start:#?}");
    start.agrees(&file.report()?)?;
    Ok(traced)
}

fn is_wrapped(start: &Start) -> Result<()> {
    ensure!(start.has("wrapper"), "{}", start.outline());
    ensure!(start.phase("exec").is_ok(), "{}", start.outline());
    Ok(())
}

macro_rules! wrapped {
    ($($name:ident: $before:expr;)*) => {$(
        #[test]
        fn $name() -> Result<()> {
            requirement::root()?;
            let _machine = machine::shared()?;
            let traced = around_oracle(&$before, &ReportFile::new()?)?;
            is_wrapped(traced.only()?)
        }
    )*};
}

wrapped! {
    a_child_of_posix_spawn: [c("spawn")?, "posix_spawn".into()];
    a_child_of_vfork: [c("spawn")?, "vfork".into()];
    a_child_of_fork: [c("spawn")?, "fork".into()];
    a_grandchild: [c("spawn")?, "fork".into(), c("spawn")?, "vfork".into()];
    an_exec_by_a_thread_that_does_not_lead: [c("thread_exec")?];
    a_file_that_no_path_names: [c("memfd")?];
    an_exec_by_a_shell: ["/bin/sh".into(), "-c".into(), r#"exec "$0" "$@""#.into()];
    a_child_of_a_shell: ["/bin/sh".into(), "-c".into(), r#""$0" "$@"; exit $?"#.into()];
    a_child_of_a_shell_of_a_shell: [
        "/bin/sh".into(), "-c".into(), r#"/bin/sh -c '"$0" "$@"; exit $?' "$0" "$@""#.into()
    ];
    an_exec_by_env: ["/usr/bin/env".into(), "HEARTH_TEST=1".into()];
}

#[test]
fn a_search_that_fails_first_begins_exec_at_the_one_that_succeeds() -> Result<()> {
    #[derive(Deserialize)]
    struct Search {
        exec_ns: u64,
    }
    requirement::root()?;
    let _machine = machine::shared()?;
    let file = ReportFile::new()?;
    let searches = file
        .folder()
        .join("search.json")
        .to_string_lossy()
        .into_owned();
    let traced = around_oracle(&[c("exec_search")?, searches.clone(), "5".into()], &file)?;
    let search: Search = serde_json::from_str(&fs::read_to_string(&searches)?)?;
    let start = traced.only()?;
    let exec = start.phase("exec")?;
    ensure!(
        exec.begin_ns >= search.exec_ns,
        "exec began at {}, while the search went on until {}",
        exec.begin_ns,
        search.exec_ns
    );
    let wrapper = start.phase("wrapper")?;
    ensure!(wrapper.begin_ns < search.exec_ns, "{}", start.outline());
    Ok(())
}

fn script(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text)?;
    fs::set_permissions(path, Permissions::from_mode(0o755))?;
    Ok(())
}

#[test]
fn an_interpreter_of_an_interpreter_is_one_exec() -> Result<()> {
    requirement::root()?;
    let _machine = machine::shared()?;
    let file = ReportFile::new()?;
    let [inner, outer] = ["inner", "outer"].map(|name| file.folder().join(name));
    script(&inner, &format!("#!{}\n", c("oracle")?))?;
    script(&outer, &format!("#!{}\n", inner.display()))?;
    let report = file.path().to_string_lossy().into_owned();
    let traced = trace(
        &[],
        &[
            outer.to_string_lossy().into_owned(),
            "listen".into(),
            report,
        ],
    )?;
    let start = traced.only()?;
    start.agrees(&file.report()?)?;
    ensure!(start.ready == "listen", "{start:#?}");
    ensure!(!start.has("wrapper"), "{}", start.outline());
    Ok(())
}

#[test]
fn a_process_that_lives_a_millisecond() -> Result<()> {
    requirement::root()?;
    let _machine = machine::shared()?;
    let file = ReportFile::new()?;
    let report = file.path().to_string_lossy().into_owned();
    let traced = trace(&[], &[c("brief")?, report])?;
    let start = traced.only()?;
    start.hands_over(&file.report()?)?;
    ensure!(start.ready == "exit", "{start:#?}");
    ensure!(start.exit_status == Some(7 << 8), "{start:#?}");
    ensure!(
        start.phase("user_init")?.duration_ns() >= 1_000_000,
        "{}",
        start.outline()
    );
    Ok(())
}

#[test]
fn a_daemon_is_ready_when_its_grandchild_listens() -> Result<()> {
    #[derive(Deserialize)]
    struct Ancestor {
        ancestor: u32,
    }
    requirement::root()?;
    let _machine = machine::shared()?;
    let file = ReportFile::new()?;
    let report = file.path().to_string_lossy().into_owned();
    let traced = trace(&[], &[c("daemonise")?, report, "20".into()])?;
    let start = traced.only()?;
    start.agrees(&file.report()?)?;
    ensure!(start.ready == "listen", "{start:#?}");
    ensure!(
        start.identity.pid != file.only::<Ancestor>()?.ancestor,
        "{start:#?}"
    );
    Ok(())
}

#[test]
fn a_process_id_used_before() -> Result<()> {
    #[derive(Deserialize)]
    struct Reused {
        reused: u32,
    }
    requirement::root()?;
    let _machine = machine::shared()?;
    let file = ReportFile::new()?;
    let reuse = file
        .folder()
        .join("reuse.json")
        .to_string_lossy()
        .into_owned();
    let traced = around_oracle(&[c("pid_reuse")?, reuse.clone(), c("brief")?], &file)?;
    let reused: Reused = serde_json::from_str(&fs::read_to_string(&reuse)?)
        .context("the process id was not used again")?;
    let start = traced.only()?;
    ensure!(start.identity.pid == reused.reused, "{start:#?}");
    // The exec is that of the second process: the first one's was long before.
    ensure!(
        start.phase("exec")?.begin_ns >= start.identity.start_boottime_ns,
        "an exec before its process: {start:#?}"
    );
    Ok(())
}
