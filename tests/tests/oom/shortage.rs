//! The whole machine runs out of memory.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use hearth::kernel::oom::OomLimits;
use hearth_abi::{OomConstraint, OomKillField, OomSource};
use hearth_tests::{child, machine, requirement};

use crate::captured::Captures;
use crate::scene::{LIMIT, Scene};
use crate::{adjustment, is_known, outline, source, victim};

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
    let scene = Scene::new("machine")?;
    let mut captures = Captures::start(OomLimits::default())?;
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
        kill.constraint == OomConstraint::None as u16,
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
