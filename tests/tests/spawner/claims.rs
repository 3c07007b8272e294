//! What is handed over.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use hearth_runtime::process::Process;
use hearth_runtime::sandbox::Resources;
use hearth_runtime::sandbox::spawner::SpawnerError;
use hearth_tests::cgroup::Hierarchy;

use crate::scene::{MIB, Scene, read, until};

fn resources() -> Resources {
    Resources {
        memory_bytes: Some(64 * MIB),
        cpu_millicores: Some(500),
        pids: Some(20),
        ..Resources::default()
    }
}

#[test]
fn a_parked_sandbox_is_handed_over_with_its_limits_in_the_kernels_files() -> Result<()> {
    let scene = Scene::new("hit", 1)?;
    let claimed = scene.claim(resources())?;
    ensure!(claimed.was_parked);
    let memory = Hierarchy::memory()?;
    let slot = claimed.slot.to_string();
    let directory = memory.mount.join(claimed.cgroup.trim_start_matches('/'));
    assert_eq!(directory, memory.mount.join(scene.name()).join(&slot));
    let file = if memory.v2 {
        "memory.max"
    } else {
        "memory.limit_in_bytes"
    };
    for (setting, file) in [("memory", file), ("pids", "pids.max")] {
        let told = claimed.limits.iter().find(|(name, _)| name == setting);
        let told = told
            .with_context(|| format!("{:?}", claimed.limits))?
            .1
            .clone();
        let mut files = scene
            .directories(&slot)?
            .into_iter()
            .map(|dir| dir.join(file));
        let file = files
            .find(|file| file.exists())
            .context("no file of the limit")?;
        assert_eq!(told, Ok(read(&file)?), "{}", file.display());
    }
    assert_eq!(read(directory.join(file))?, (64 * MIB).to_string());

    let process = Path::new("/proc").join(claimed.init.pid.to_string());
    assert_eq!(Process::of(claimed.init.pid)?, Some(claimed.init));
    for line in read(process.join("cgroup"))?.lines() {
        let is_ours = scene.directories(&slot)?.iter().any(|directory| {
            let pids = fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
            pids.lines().any(|pid| pid == claimed.init.pid.to_string())
        });
        ensure!(is_ours, "{line}");
    }
    for directory in scene.directories(&slot)? {
        let pids = read(directory.join("cgroup.procs"))?;
        assert_eq!(
            pids,
            claimed.init.pid.to_string(),
            "{}",
            directory.display()
        );
    }
    for kind in ["pid", "mnt", "net", "ipc", "uts"] {
        let own = fs::read_link(Path::new("/proc/self/ns").join(kind))?;
        assert_ne!(fs::read_link(process.join("ns").join(kind))?, own);
    }
    Ok(())
}

#[test]
fn the_first_process_has_what_it_needs_and_no_more() -> Result<()> {
    let scene = Scene::new("fds", 3)?;
    let claimed = scene.claim(resources())?;
    let process = Path::new("/proc").join(claimed.init.pid.to_string());
    let fds = fs::read_dir(process.join("fd"))?.map(|entry| Ok(entry?.file_name()));
    let fds: BTreeSet<_> = fds.collect::<Result<_>>()?;
    assert_eq!(fds, ["0", "1", "2", "3", "4"].map(Into::into).into());
    for fd in ["0", "1"] {
        assert_eq!(
            fs::read_link(process.join("fd").join(fd))?,
            Path::new("/dev/null")
        );
    }
    let words = fs::read(process.join("cmdline"))?;
    let words = String::from_utf8(words)?;
    let words: Vec<_> = words.trim_end_matches('\0').split('\0').collect();
    let slot: u32 = claimed
        .slot
        .to_string()
        .trim_start_matches("slot-")
        .parse()?;
    let uid = (0x6000_0000 + 2 * slot).to_string();
    let sandbox = claimed.sandbox.to_string();
    assert_eq!(words, ["hearth-init", "--sandbox", &sandbox, "--uid", &uid]);
    assert_eq!(fs::read(process.join("environ"))?, b"");
    let status = read(process.join("status"))?;
    let blocked = status.lines().find_map(|line| line.strip_prefix("SigBlk:"));
    assert_eq!(blocked.map(str::trim), Some("0000000000000000"));
    scene.order(claimed.sandbox, b'.')
}

#[test]
fn where_none_is_parked_one_is_made() -> Result<()> {
    let scene = Scene::new("miss", 0)?;
    let claimed = scene.claim(resources())?;
    ensure!(!claimed.was_parked);
    scene.order(claimed.sandbox, b'.')?;
    let slots = scene.spawner()?.slots()?;
    assert_eq!((slots.hits, slots.misses, slots.claimed), (0, 1, 1));
    Ok(())
}

#[test]
fn claims_at_once_get_a_sandbox_each() -> Result<()> {
    let scene = Scene::new("many", 2)?;
    let claimed = std::thread::scope(|scope| {
        let one = || scene.claim(resources());
        let all: Vec<_> = (0..8).map(|_| scope.spawn(one)).collect();
        let all = all.into_iter().map(|claim| claim.join().expect("no panic"));
        all.collect::<Result<Vec<_>>>()
    })?;
    let ids: BTreeSet<_> = claimed.iter().map(|claimed| claimed.sandbox).collect();
    let slots: BTreeSet<_> = claimed.iter().map(|claimed| claimed.slot).collect();
    assert_eq!((ids.len(), slots.len()), (8, 8));
    let listed = scene.spawner()?.list()?;
    assert_eq!(
        listed
            .iter()
            .map(|one| one.sandbox)
            .collect::<BTreeSet<_>>(),
        ids
    );
    assert!(listed.is_sorted_by_key(|one| one.sandbox));
    let slots = scene.spawner()?.slots()?;
    assert_eq!((slots.hits + slots.misses, slots.claimed), (8, 8));
    scene.parked(2)
}

#[test]
fn a_claim_that_cannot_be_met_is_refused_and_leaves_nothing() -> Result<()> {
    let scene = Scene::new("refused", 1)?;
    let before = scene.remains()?;
    let too_little = Resources {
        memory_bytes: Some(5),
        ..Resources::default()
    };
    match scene.spawner()?.claim("resize".parse()?, too_little) {
        Err(SpawnerError::Refused { why, again: false }) => {
            ensure!(why.contains("memory = 5") && why.contains("1 MiB"), "{why}");
        }
        other => anyhow::bail!("{other:?}"),
    }
    assert_eq!(scene.remains()?, before);
    Ok(())
}

#[test]
fn a_parked_sandbox_that_lost_its_cgroup_is_not_handed_over() -> Result<()> {
    let scene = Scene::new("lost", 1)?;
    let remains = scene.remains()?;
    let (pid, _) = remains.processes.first().context("none is parked")?;
    // What somebody must do who removes it under the process: in one hierarchy by itself.
    let memory = Hierarchy::memory()?;
    let slot = memory.path_of(&pid.to_string())?;
    let slot = memory.mount.join(slot.trim_start_matches('/'));
    fs::write(memory.mount.join("cgroup.procs"), pid.to_string())?;
    until("the slot can be removed", || {
        Ok(fs::remove_dir(&slot).is_ok())
    })?;
    let claimed = scene.claim(resources())?;
    ensure!(claimed.init.pid != *pid && memory.mount.join(&claimed.cgroup[1..]) != slot);
    assert_eq!(
        read(memory.mount.join(&claimed.cgroup[1..]).join("cgroup.procs"))?,
        claimed.init.pid.to_string()
    );
    scene.parked(1)?;
    scene.spawner()?.end(claimed.sandbox)?;
    scene.only_parked(1)?;
    assert_eq!(scene.spawner()?.slots()?.lost, 1);
    ensure!(Process::of(*pid)?.is_none(), "its process is gone");
    Ok(())
}
