//! Victims in other languages than C.

use anyhow::{Context as _, Result, ensure};
use hearth::kernel::event::OomEvent;
use hearth::kernel::oom::OomLimits;
use hearth::observe::oom::assembler::{About, Assembler, Surroundings};
use hearth::observe::oom::{Capture, Known, Reason};
use hearth::time::Boottime;
use hearth_abi::OomKill;
use hearth_tests::{machine, programs, requirement};

use crate::captured::{self, Captures};
use crate::scene::Scene;
use crate::{dies, dies_before, is_sound};

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
    // Debian's has no frame pointers: the walk goes from the C library to a word of data.
    let told = assembled(&capture)?;
    let thread = &told.threads[0];
    let frames = thread.user_stack.value().context("a stack")?;
    let mut files = Vec::new();
    for frame in frames.iter().chain(thread.leaf.value()) {
        let Known::Value(index) = frame.mapping else {
            continue;
        };
        let vma = &told.mappings[index as usize].vma;
        ensure!(
            vma.start <= frame.ip.0 && frame.ip.0 < vma.end && vma.perms.contains('x'),
            "{frame:?} is in {vma:?}"
        );
        files.push(vma.name.rsplit('/').next().unwrap_or_default());
    }
    ensure!(frames[0].mapping.value().is_some(), "{frames:?}");
    ensure!(
        files.iter().any(|file| file.starts_with("python3")),
        "{files:?}"
    );
    Ok(())
}

/// What the daemon makes of the records.
fn assembled(capture: &captured::Capture) -> Result<Capture> {
    let mut assembler = Assembler::new(About::default());
    let around = |_: &OomKill| Surroundings {
        victim_cgroup: None,
        asker_cgroup: None,
        cgroup: None,
        exe: Known::absent(Reason::Off, ""),
        state: Known::absent(Reason::Off, ""),
        before: Known::absent(Reason::Off, ""),
        is_pending: false,
    };
    let threads = capture
        .threads
        .iter()
        .map(|of| OomEvent::Thread((*of).into()));
    let vmas = capture.vmas.iter().map(|of| OomEvent::Vma((*of).into()));
    let kill = OomEvent::Kill((*capture.kill()?).into());
    for event in std::iter::once(kill).chain(threads).chain(vmas) {
        assembler.accept(event, Boottime(0), around);
    }
    let mut finished = assembler.advance(Boottime(u64::MAX), |at| at.0);
    finished.pop().context("a capture")
}
