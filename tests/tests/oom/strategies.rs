//! The ways of kernels that do not allow the best one.

use anyhow::{Result, ensure};
use hearth::kernel::oom::OomLimits;
use hearth_abi::{OomKillField, OomSource};
use hearth_tests::{machine, requirement};

use crate::captured::Captures;
use crate::scene::{LIMIT, Scene};
use crate::{PAGE, dies_before, is_known, outline, source, victim};

/// The programs without which only the mark of a victim tells of a kill.
pub(crate) const BY_MARK: [&str; 2] = ["oom_killed", "oom_killed_kprobe"];

/// The programs of the best ways, whoever has them.
const BEST: [&str; 3] = ["oom_killed", "oom_thread", "oom_thread_fentry"];

#[test]
fn by_breakpoints_it_is_the_same_but_for_what_they_cannot_see() -> Result<()> {
    requirement::root()?;
    let _machine = machine::shared()?;
    if !std::path::Path::new("/sys/bus/event_source/devices/kprobe").exists() {
        return Ok(());
    }
    let mut captures = Captures::without(OomLimits::default(), &BEST)?;
    for kind in ["oom:kill", "oom:thread"] {
        let by = captures.strategy(kind);
        ensure!(by.as_deref() == Some("kprobe"), "{kind} by {by:?}");
    }
    for mode in ["fault", "threads"] {
        let capture = dies_before(&mut captures, &victim()?, mode, None)?;
        let kill = capture.kill()?;
        ensure!(capture.threads.len() == kill.threads as usize);
        ensure!(source(kill, OomKillField::Request) == Some(OomSource::Read));
        ensure!(source(kill, OomKillField::Registers) == Some(OomSource::OutOfReach));
    }
    Ok(())
}

#[test]
fn by_the_mark_of_a_victim_it_is_the_same_but_for_what_is_derived() -> Result<()> {
    requirement::root()?;
    let _machine = machine::shared()?;
    let mut captures = Captures::without(OomLimits::default(), &BY_MARK)?;
    let by = captures.strategy("oom:kill");
    ensure!(by.as_deref() == Some("tp_btf:mark_victim"), "{by:?}");
    let scene = Scene::new("mark")?;
    let victim = scene.kill(&victim()?, "fault")?;
    let capture = captures.whole(victim.pid)?;
    let kill = capture.kill()?;
    ensure!(is_known(&capture.threads[0], &victim), "{victim:#x?}");
    ensure!(source(kill, OomKillField::Request) == Some(OomSource::OutOfReach));
    ensure!(source(kill, OomKillField::Registers) == Some(OomSource::Read));
    let told = source(kill, OomKillField::Memcg);
    if told == Some(OomSource::Derived) {
        ensure!(kill.limit_pages == LIMIT / PAGE, "{}", outline(kill));
    } else {
        // A kernel that does not say in which cgroup it kills.
        ensure!(told == Some(OomSource::OutOfReach) && kill.limit_pages == 0);
    }
    captures.balance()
}
