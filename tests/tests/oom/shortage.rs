//! What was short: the whole machine, or a cgroup whose limit was lowered; whichever way it is seen.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use hearth::kernel::oom::OomLimits;
use hearth_abi::{OomConstraint, OomKillField, OomSource};
use hearth_tests::{child, machine, requirement};

use crate::captured::Captures;
use crate::scene::{LIMIT, Scene};
use crate::strategies::BY_MARK;
use crate::{PAGE, adjustment, is_known, outline, source, victim};

#[test]
fn a_limit_that_is_lowered_kills_for_the_cgroup_whichever_way_it_is_seen() -> Result<()> {
    const LOWERED: u64 = 4 << 20;
    requirement::root()?;
    let _machine = machine::shared()?;
    for without in [&[][..], &BY_MARK] {
        let scene = Scene::new("lowered")?;
        // Version 1 refuses such a limit instead.
        if !scene.v2 {
            return Ok(());
        }
        let mut captures = Captures::without(OomLimits::default(), without)?;
        let mut idle = child::Guard(scene.command(&victim()?, "idle").spawn()?);
        let victim = scene.waiting(1)?.remove(0);
        scene.write("memory.max", &LOWERED.to_string())?;
        idle.wait(Duration::from_mins(1))?;
        let capture = captures.whole(victim.pid)?;
        let kill = capture.kill()?;
        println!("{:?}: {}", captures.strategy("oom:kill"), outline(kill));
        ensure!(
            kill.constraint == OomConstraint::Memcg as u16
                && source(kill, OomKillField::Constraint).is_some_and(OomSource::is_there),
            "{}",
            outline(kill)
        );
        let directory = std::fs::metadata(&scene.cgroup.directory)?;
        ensure!(
            kill.memcg == std::os::unix::fs::MetadataExt::ino(&directory)
                && kill.limit_pages == LOWERED / PAGE
                && kill.usage_pages > kill.limit_pages,
            "{}",
            outline(kill)
        );
        ensure!(kill.asker.tgid == std::process::id(), "{}", outline(kill));
        captures.balance()?;
    }
    Ok(())
}

/// Kills since boot, whatever was short.
fn kills_of_the_machine() -> Result<u64> {
    let text = std::fs::read_to_string("/proc/vmstat").context("read /proc/vmstat")?;
    let line = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
    line.context("no kills are counted")?
        .parse()
        .context("a count")
}

/// Keeps this process alive while the machine is short, and what it starts if that says nothing
/// else.
struct Spared(i32);

impl Spared {
    fn new() -> Result<Self> {
        let before = adjustment()?;
        std::fs::write("/proc/self/oom_score_adj", "-1000").context("be spared")?;
        Ok(Self(before))
    }
}

impl Drop for Spared {
    fn drop(&mut self) {
        let _ = std::fs::write("/proc/self/oom_score_adj", self.0.to_string());
    }
}

#[test]
fn a_shortage_of_the_whole_machine_is_told_apart() -> Result<()> {
    // Only where nobody else lives.
    if std::env::var_os("HEARTH_PROGRAMS").is_none() {
        return Ok(());
    }
    requirement::root()?;
    let _machine = machine::quiet()?;
    for without in [&[][..], &BY_MARK] {
        is_told_apart(without)?;
    }
    Ok(())
}

fn is_told_apart(without: &[&'static str]) -> Result<()> {
    let scene = Scene::new("machine")?;
    let mut captures = Captures::without(OomLimits::default(), without)?;
    let before = kills_of_the_machine()?;
    // Memory comes back slowly: who is short meanwhile must find another to kill, or the kernel
    // gives up.
    scene.write("memory.max", &(8 * LIMIT).to_string())?;
    let mut others = Vec::new();
    for _ in 0..3 {
        others.push(child::Guard(scene.command(&victim()?, "idle").spawn()?));
    }
    scene.waiting(others.len())?;
    let _spared = Spared::new()?;
    let victim = scene.kill_for_the_machine(&victim()?)?;
    let capture = captures.whole(victim.pid)?;
    let kill = capture.kill()?;
    ensure!(
        kill.constraint == OomConstraint::None as u16
            && source(kill, OomKillField::Constraint).is_some_and(OomSource::is_there),
        "{}",
        outline(kill)
    );
    ensure!(
        kill.memcg == 0 && kill.oom_score_adj == 1000,
        "{}",
        outline(kill)
    );
    ensure!(source(kill, OomKillField::Usage) == Some(OomSource::None));
    ensure!(is_known(&capture.threads[0], &victim), "{victim:#x?}");
    let begin = Instant::now();
    loop {
        let kills = captures.kills().len() as u64;
        let counted = kills_of_the_machine()? - before;
        if counted == kills {
            break;
        }
        ensure!(
            begin.elapsed() < Duration::from_secs(10),
            "{kills} of {counted}"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
    captures.balance()
}
