//! The spawner is killed before each of its calls that change anything, from its start to the end
//! of a claimed sandbox; the next one finds all of what is left.

use std::fs;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use hearth_runtime::id::SandboxId;
use hearth_runtime::journal;
use hearth_runtime::sandbox::Resources;
use hearth_runtime::sandbox::spawner::Spawner;
use hearth_tests::node::Remains;
use rustix::process::{Pid, Signal, kill_process};

use crate::scene::{MIB, Scene, until};
use crate::tracer::Traced;

/// What was told to who asked, before the spawner was killed.
#[derive(Debug, Default)]
struct Told {
    claimed: Vec<SandboxId>,
    ended: Vec<SandboxId>,
}

#[test]
fn killed_at_any_step_it_leaves_nothing_that_the_next_one_does_not_find() -> Result<()> {
    // Of an emulated machine's time some steps are enough: each of them is tried elsewhere.
    let stride = if Scene::is_emulated() { 9 } else { 1 };
    let mut nth = 1;
    loop {
        let made = killed_before(nth).with_context(|| format!("killed before call {nth}"))?;
        if made < nth {
            eprintln!("unharmed after {made} calls");
            ensure!(made > 100, "it was not killed");
            return Ok(());
        }
        nth += stride;
    }
}

/// How many calls it made before it was killed.
fn killed_before(nth: u64) -> Result<u64> {
    let mut scene = Scene::empty("killed")?;
    let traced = Traced::start(scene.command(1)?, nth)?;
    let mut told = Told::default();
    // Whatever fails does because it was killed; what was answered counts.
    let story = story(&scene, &traced, &mut told);
    let made = traced.kill()?;
    if made < nth {
        story.context("nobody killed it")?;
    }

    scene.start_spawner(1)?;
    // A child that had just begun keeps the socket of the former one open for a moment.
    until("the next one answers", || {
        Ok(scene
            .spawner()
            .is_ok_and(|mut spawner| spawner.slots().is_ok()))
    })?;
    scene.parked(1).context("park")?;
    let all = scene.spawner()?.list()?;
    for one in told.claimed.iter().filter(|one| !told.ended.contains(one)) {
        let is_it = all
            .iter()
            .any(|listed| listed.sandbox == *one && listed.adopted);
        ensure!(is_it, "{one} was claimed, and is not adopted: {all:?}");
        scene.order(*one, b'.')?;
    }
    let ended = |id| all.iter().any(|listed| listed.sandbox == id);
    ensure!(
        !told.ended.iter().any(|id| ended(*id)),
        "an ended one is listed"
    );
    // One that was claimed by the journal only ends by itself.
    until("those that are listed are there", || {
        let mut all = scene.spawner()?.list()?.into_iter();
        Ok(all.all(|one| scene.order(one.sandbox, b'.').is_ok()))
    })?;
    for one in scene.spawner()?.list()? {
        scene.spawner()?.end(one.sandbox)?;
    }
    scene.only_parked(1).context("settle")?;
    let pid = Pid::from_raw(scene.spawner_pid()?.try_into()?).context("a process")?;
    kill_process(pid, Signal::TERM)?;
    ensure!(
        scene.wait_for_spawner()?.success(),
        "it could not take all of it away"
    );
    assert_eq!(scene.remains()?, Remains::default());
    ensure!(
        copies(scene.name())?.is_empty(),
        "a child is left that never ran its program"
    );
    let journal = journal::read(&fs::read(scene.places().journal().join("journal"))?);
    ensure!(
        journal.lives.is_empty() && journal.damaged == 0,
        "{journal:?}"
    );
    Ok(made)
}

/// Start, park, claim, park, end, claim.
fn story(scene: &Scene, traced: &Traced, told: &mut Told) -> Result<()> {
    let limits = Resources {
        memory_bytes: Some(64 * MIB),
        ..Resources::default()
    };
    let patience = Duration::from_secs(20);
    let mut spawner = loop {
        match Spawner::connect(&scene.places(), patience) {
            Ok(spawner) => break spawner,
            Err(error) if traced.is_dead() => return Err(error.into()),
            Err(_) => thread::sleep(Duration::from_millis(1)),
        }
    };
    let first = spawner.claim("resize".parse()?, limits)?;
    told.claimed.push(first.sandbox);
    while spawner.slots()?.parked < 1 {
        thread::sleep(Duration::from_millis(1));
    }
    // It may be gone although nobody could say so any more.
    told.claimed.clear();
    spawner.end(first.sandbox)?;
    told.ended.push(first.sandbox);
    let second = spawner.claim("resize".parse()?, limits)?;
    told.claimed.push(second.sandbox);
    // Until the slot of the first one is clean again.
    while spawner.slots()?.waiting > 0 {
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// Processes with the command line of a spawner of this node.
fn copies(name: &str) -> Result<Vec<String>> {
    let lines = fs::read_dir("/proc")?.map(|entry| Ok(entry?.path().join("cmdline")));
    let lines = lines.collect::<Result<Vec<_>>>()?.into_iter();
    let lines = lines.filter_map(|path| fs::read(path).ok());
    let lines = lines.map(|line| String::from_utf8_lossy(&line).into_owned());
    Ok(lines.filter(|line| line.contains(name)).collect())
}
