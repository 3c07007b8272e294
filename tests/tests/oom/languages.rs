//! Victims in other languages than C.

use anyhow::{Result, ensure};
use hearth::kernel::oom::OomLimits;
use hearth_tests::{machine, programs, requirement};

use crate::captured::Captures;
use crate::scene::Scene;
use crate::{dies, dies_before, frames, is_sound, text};

#[test]
fn a_victim_in_rust_is_where_it_knows_it_is() -> Result<()> {
    dies(&[programs::oom_victim_rust()?], "fault", 1).map(drop)
}

#[test]
fn a_victim_in_go_is_where_it_knows_it_is() -> Result<()> {
    requirement::root()?;
    let _machine = machine::shared()?;
    let mut captures = Captures::start(OomLimits::default())?;
    // How many threads its runtime makes is its own affair.
    let program = [programs::oom_victim_go()?];
    let capture = dies_before(&mut captures, &program, "fault", None)?;
    let kill = capture.kill()?;
    // One that it was just making, or that was on its way out already, comes to its end too.
    ensure!(
        capture.threads.len() >= kill.threads as usize,
        "{} of {} threads",
        capture.threads.len(),
        kill.threads
    );
    Ok(())
}

#[test]
fn a_victim_in_python_is_in_its_interpreter() -> Result<()> {
    // The VMs have none.
    if std::env::var_os("HEARTH_PROGRAMS").is_some() {
        return Ok(());
    }
    requirement::root()?;
    let _machine = machine::shared()?;
    let scene = Scene::new("python")?;
    let mut captures = Captures::start(OomLimits::default())?;
    let victim = scene.kill(&programs::oom_victim_python()?, "fault")?;
    let capture = captures.whole(victim.pid)?;
    is_sound(&capture, &scene, &victim)?;
    let thread = &capture.threads[0];
    let files: Vec<_> = frames(thread)
        .iter()
        .chain([&thread.leaf])
        .filter_map(|address| {
            let vma = capture
                .vmas
                .iter()
                .find(|vma| (vma.start..vma.end).contains(address))?;
            Some(text(&vma.names))
        })
        .collect();
    ensure!(
        files.iter().any(|file| file.starts_with("python3")),
        "{files:?}"
    );
    Ok(())
}
