//! Programs of every language against their own clocks.

use anyhow::{Result, ensure};
use hearth_tests::cgroup::Hierarchy;
use hearth_tests::programs::{self, Language};
use hearth_tests::report::ReportFile;
use hearth_tests::start::Start;
use hearth_tests::trace::trace;
use hearth_tests::{machine, requirement};

fn phases(start: &Start) -> Vec<&str> {
    start
        .phases
        .iter()
        .flat_map(hearth_tests::start::Phase::names)
        .collect()
}

fn listens(language: Language) -> Result<()> {
    requirement::root()?;
    let _machine = machine::shared()?;
    let file = ReportFile::new()?;
    let path = file.path().to_string_lossy().into_owned();
    let command = programs::oracle(language)?.with(&["listen", &path]);
    let traced = trace(&[], &command)?;
    let start = traced.only()?;
    start.hands_over(&file.report()?)?;
    ensure!(start.ready == "listen", "{start:#?}");
    ensure!(start.opener == "trace", "{start:#?}");
    ensure!(start.exit_status.is_none(), "{start:#?}");
    ensure!(start.lost == 0, "{start:#?}");
    ensure!(!start.strategies.is_empty(), "{start:#?}");
    ensure!(
        phases(start) == ["create", "exec", "link", "runtime_init", "user_init"],
        "{}",
        start.outline()
    );
    ensure!(
        start.identity.is_called(&command[0]),
        "{:?}",
        start.identity
    );
    let own = Hierarchy::memory()?.path_of("self")?;
    ensure!(
        start.identity.cgroup_path.as_deref() == Some(&*own),
        "{:?}",
        start.identity
    );
    for phase in &start.phases {
        phase.split()?;
        ensure!(phase.minor_faults.is_some(), "{phase:?}");
        ensure!(phase.major_faults.is_some(), "{phase:?}");
        ensure!(phase.read_bytes.is_some(), "{phase:?}");
    }
    Ok(())
}

fn exits(language: Language) -> Result<()> {
    requirement::root()?;
    let _machine = machine::shared()?;
    let file = ReportFile::new()?;
    let path = file.path().to_string_lossy().into_owned();
    let traced = trace(&[], &programs::oracle(language)?.with(&["exit", &path]))?;
    let start = traced.only()?;
    start.hands_over(&file.report()?)?;
    ensure!(start.ready == "exit", "{start:#?}");
    ensure!(start.exit_status == Some(0), "{start:#?}");
    Ok(())
}

macro_rules! languages {
    ($($name:ident: $language:ident,)*) => {
        $(mod $name {
            use super::*;

            #[test]
            fn is_ready_when_it_listens() -> Result<()> {
                listens(Language::$language)
            }

            #[test]
            fn is_ready_when_it_ends() -> Result<()> {
                exits(Language::$language)
            }
        })*
    };
}

languages! {
    c_dynamic: CDynamic,
    c_static: CStatic,
    rust: Rust,
    go: Go,
    python: Python,
    node: Node,
    java: Java,
}

#[test]
fn a_stripped_program_hands_over_too() -> Result<()> {
    requirement::root()?;
    let _machine = machine::shared()?;
    let file = ReportFile::new()?;
    let path = file.path().to_string_lossy().into_owned();
    let program = programs::c_stripped("oracle")?
        .to_string_lossy()
        .into_owned();
    let traced = trace(&[], &[program, "listen".into(), path])?;
    traced.only()?.hands_over(&file.report()?)
}
