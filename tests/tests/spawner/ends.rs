//! Ends: nothing is left, and whoever must know is told how it came.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use anyhow::{Context as _, Result, ensure};
use hearth_runtime::process::Process;
use hearth_runtime::sandbox::Resources;
use hearth_runtime::sandbox::message::Exit;
use hearth_runtime::sandbox::spawner::SpawnerError;
use hearth_tests::node::{PATIENCE, namespaces};
use rustix::process::{Pid, Signal, kill_process};

use crate::scene::{MIB, Scene, until};

const KILLED: Exit = Exit::Signal(9);

#[test]
fn of_an_ended_sandbox_nothing_is_left() -> Result<()> {
    let scene = Scene::new("end", 1)?;
    let claimed = scene.claim(Resources::default())?;
    scene.order(claimed.sandbox, b'f')?;
    let slot = claimed.slot.to_string();
    let processes = || -> Result<Vec<u32>> {
        let all = scene.remains()?.processes.into_iter();
        let of_slot = |pid: &u32| {
            let cgroup = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
            cgroup.contains(&slot)
        };
        Ok(all.map(|(pid, _)| pid).filter(of_slot).collect())
    };
    assert_eq!(processes()?.len(), 2);
    let kinds = ["mnt", "net", "pid"];
    // Held, so that no other namespace gets their numbers.
    let of_init = |kind: &&str| {
        Ok(fs::File::open(format!(
            "/proc/{}/ns/{kind}",
            claimed.init.pid
        ))?)
    };
    let held = kinds.iter().map(of_init).collect::<Result<Vec<_>>>()?;

    let ended = scene.spawner()?.end(claimed.sandbox)?;
    // At once, as it was told to be gone.
    assert_eq!((ended.sandbox, ended.how), (claimed.sandbox, KILLED));
    ensure!(
        ended.cpu.is_some() && ended.oom_kills == Some(0),
        "{ended:?}"
    );
    ensure!(processes()?.is_empty());
    ensure!(
        Process::of(claimed.init.pid)?.is_none(),
        "not even a zombie"
    );
    ensure!(!scene.places().sandbox(claimed.sandbox).exists());
    for (kind, held) in kinds.iter().zip(held) {
        let inode = held.metadata()?.ino();
        ensure!(
            !namespaces(kind)?.contains(&inode),
            "somebody is in its {kind} namespace"
        );
    }
    ensure!(scene.spawner()?.list()?.is_empty());
    scene.only_parked(1)?;
    match scene.spawner()?.end(claimed.sandbox) {
        Err(SpawnerError::Refused { why, again: false }) => ensure!(why.contains("has ended")),
        other => anyhow::bail!("{other:?}"),
    }
    Ok(())
}

#[test]
fn who_watches_is_told_of_those_that_end_by_themselves() -> Result<()> {
    let scene = Scene::new("watch", 3)?;
    let mut watch = scene.spawner()?.watch()?;
    let [exits, is_killed, is_ended] = [(); 3].map(|()| scene.claim(Resources::default()));
    let (exits, is_killed, is_ended) = (exits?, is_killed?, is_ended?);
    scene.order(is_killed.sandbox, b'f')?;
    scene.spawner()?.end(is_ended.sandbox)?;
    ensure!(scene.order(exits.sandbox, b'x').is_err());
    let ended = watch.next(PATIENCE)?.context("nothing was told")?;
    assert_eq!((ended.sandbox, ended.how), (exits.sandbox, Exit::Code(7)));
    let pid = Pid::from_raw(is_killed.init.pid.try_into()?).context("a process")?;
    kill_process(pid, Signal::KILL)?;
    let ended = watch.next(PATIENCE)?.context("nothing was told")?;
    assert_eq!((ended.sandbox, ended.how), (is_killed.sandbox, KILLED));
    scene.only_parked(3)
}

#[test]
fn a_sandbox_that_is_killed_for_memory_says_so_and_the_next_one_does_not() -> Result<()> {
    let scene = Scene::new("oom", 1)?;
    let mut watch = scene.spawner()?.watch()?;
    let resources = Resources {
        memory_bytes: Some(32 * MIB),
        memory_high_bytes: Some(32 * MIB),
        ..Resources::default()
    };
    let claimed = scene.claim(resources)?;
    ensure!(scene.order(claimed.sandbox, b'm').is_err());
    let ended = watch.next(PATIENCE)?.context("nothing was told")?;
    assert_eq!(ended.how, KILLED);
    // Where the whole cgroup goes with the victim, each of it may be counted.
    ensure!(ended.oom_kills >= Some(1), "{ended:?}");
    ensure!(
        ended.peak_bytes.is_some_and(|peak| peak > 24 * MIB),
        "{ended:?}"
    );
    let next = scene.claim(resources)?;
    let ended = scene.spawner()?.end(next.sandbox)?;
    assert_eq!(ended.oom_kills, Some(0), "{ended:?}");
    scene.only_parked(1)
}

#[test]
fn a_process_from_elsewhere_does_not_outlive_the_sandbox_that_it_was_put_into() -> Result<()> {
    let scene = Scene::new("guest", 1)?;
    let claimed = scene.claim(Resources::default())?;
    let mut guest = std::process::Command::new("sleep").arg("600").spawn()?;
    let moved = scene.directories(&claimed.slot.to_string())?.into_iter();
    let moved = moved.map(|directory| {
        Ok(fs::write(
            directory.join("cgroup.procs"),
            guest.id().to_string(),
        )?)
    });
    let ended = moved
        .collect::<Result<()>>()
        .and_then(|()| Ok(scene.spawner()?.end(claimed.sandbox)?));
    let seen = ended.and_then(|_| Ok(guest.try_wait()?));
    let _ = guest.kill();
    guest.wait()?;
    ensure!(seen?.is_some(), "it lives on");
    Ok(())
}

#[test]
fn a_parked_one_that_dies_is_replaced() -> Result<()> {
    let scene = Scene::new("parked", 1)?;
    let (pid, _) = scene
        .remains()?
        .processes
        .first()
        .context("none is parked")?
        .clone();
    kill_process(
        Pid::from_raw(pid.try_into()?).context("a process")?,
        Signal::KILL,
    )?;
    until("another one is parked", || {
        let now = scene.remains()?.processes;
        Ok(now.len() == 1 && now.iter().all(|(other, _)| *other != pid))
    })?;
    scene.only_parked(1)
}
