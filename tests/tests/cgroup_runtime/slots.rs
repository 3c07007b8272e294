//! The pool: what is claimed is clean, whatever was done with it before.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use hearth_runtime::cgroup::limits::{Memory, Pids};
use hearth_runtime::cgroup::{Bounds, Limits, Outcome, Pool, Setting};
use hearth_tests::cgroup::Hierarchy;
use hearth_tests::machine;
use tempfile::TempDir;

use crate::scene::{MIB, Scene, Tenant, read, soon};

const BOUNDS: Bounds = Bounds {
    ready: 1,
    charge: 2 * MIB,
};

fn limits() -> Result<Limits> {
    // Where v2 slows programs below their limit, their end would take half a minute.
    let limits = Limits::default()
        .memory(Memory::new(128 * MIB)?)
        .memory_high(128 * MIB)?;
    Ok(limits.pids(Pids::new(20)?))
}

fn charge(scene: &Scene, slot: &str) -> Result<u64> {
    let file = if Hierarchy::memory()?.v2 {
        "memory.current"
    } else {
        "memory.usage_in_bytes"
    };
    Ok(read(&scene.memory(slot)?.join(file))?.parse()?)
}

#[test]
fn a_slot_is_clean_of_its_former_user() -> Result<()> {
    const TMPFS: i64 = 0x0102_1994;
    let scene = Scene::new("clean")?;
    let mut pool = Pool::new(scene.subtree.clone(), BOUNDS);
    pool.refill(soon())?;
    let slot = pool.claim(&limits()?)?;
    let name = slot.cgroup.name().clone();
    let bytes = (128 * MIB).to_string();
    assert_eq!(
        slot.limits.of(Setting::Memory),
        Some(&Outcome::Applied(bytes))
    );
    // Killed for memory once, frozen at the end, and it leaves what survives a process.
    Tenant::run(&slot.cgroup, &["eat", &(256 * MIB).to_string()])?;
    let folder = TempDir::with_prefix_in("hearth-test-", machine::target())?;
    let file = folder.path().join("left");
    let file = file.to_str().context("a path")?;
    // On a machine without a disk, names that are not there: files in memory are no cache.
    let is_disk = rustix::fs::statfs(folder.path())?.f_type != TMPFS;
    let bytes = (32 * MIB).to_string();
    let leave = if is_disk {
        ["cache", file, &bytes]
    } else {
        ["names", "100000", ""]
    };
    ensure!(Tenant::run(&slot.cgroup, &leave)?.success());
    slot.cgroup.freeze(soon())?;
    let left = charge(&scene, name.as_str())?;
    ensure!(
        left > 8 * MIB,
        "{left} bytes were left behind: too few to show anything"
    );
    let usage = slot.usage()?;
    assert_eq!(usage.memory.and_then(|memory| memory.oom_kills), Some(1));

    pool.give_back(slot);
    pool.refill(soon())?;
    assert_eq!(pool.counts().reused, 1, "{:?}", pool.counts());
    let left = charge(&scene, name.as_str())?;
    ensure!(left <= BOUNDS.charge, "{left} bytes are still charged");
    let v2 = Hierarchy::memory()?.v2;
    let (file, none) = if v2 {
        ("memory.max", "max")
    } else {
        ("memory.limit_in_bytes", "9223372036854771712")
    };
    assert_eq!(read(&scene.memory(name.as_str())?.join(file))?, none);

    let slot = pool.claim(&Limits::default())?;
    assert_eq!((slot.cgroup.name(), pool.counts().reused), (&name, 1));
    let usage = slot.usage()?;
    assert_eq!(usage.memory.and_then(|memory| memory.oom_kills), Some(0));
    assert_eq!(usage.pids.and_then(|pids| pids.refused), Some(0));
    // The limit of the former user is gone, and so is the frost.
    ensure!(Tenant::run(&slot.cgroup, &["eat", &(160 * MIB).to_string()])?.success());
    pool.give_back(slot);
    pool.close(soon())?;
    assert_eq!(scene.subtree.names()?, []);
    Ok(())
}

#[test]
fn a_slot_with_a_process_in_it_is_not_given_out_again() -> Result<()> {
    let scene = Scene::new("inhabited")?;
    let mut pool = Pool::new(scene.subtree.clone(), BOUNDS);
    let slot = pool.claim(&limits()?)?;
    let name = slot.cgroup.name().clone();
    let tenant = Tenant::start(&slot.cgroup, &["wait"])?;
    pool.give_back(slot);
    pool.refill(soon())?;
    let other = pool.claim(&limits()?)?;
    ensure!(other.cgroup.name() != &name);
    assert_eq!((pool.waiting(), pool.counts().reused), (1, 0));
    drop(tenant);
    pool.refill(soon())?;
    assert_eq!((pool.waiting(), pool.counts().reused), (0, 1));
    Ok(())
}

#[test]
fn a_slot_that_somebody_else_removed_is_replaced() -> Result<()> {
    let scene = Scene::new("lost")?;
    let mut pool = Pool::new(scene.subtree.clone(), BOUNDS);
    pool.refill(soon())?;
    let hierarchies = scene.directories("slot-0001");
    pool.close(soon())?;
    // In each of the hierarchies by itself: one that no limit is written to, too.
    for mount in hierarchies {
        let mut pool = Pool::new(scene.subtree.clone(), BOUNDS);
        pool.refill(soon())?;
        fs::remove_dir(&mount).with_context(|| mount.display().to_string())?;
        let slot = pool.claim(&limits()?)?;
        assert_eq!((pool.counts().lost, pool.counts().missed), (1, 1));
        ensure!(slot.cgroup.is_there());
        let mut tenant = Tenant::start(&slot.cgroup, &["wait"])?;
        assert_eq!(slot.cgroup.procs()?, [tenant.pid()?]);
        slot.cgroup.kill(soon())?;
        tenant.wait()?;
        pool.give_back(slot);
        pool.close(soon())?;
        // What was left of the lost one in the other hierarchies is gone as well.
        assert_eq!(scene.subtree.names()?, []);
    }
    Ok(())
}

#[test]
fn a_slot_in_which_cgroups_were_made_is_replaced() -> Result<()> {
    let scene = Scene::new("altered")?;
    let mut pool = Pool::new(scene.subtree.clone(), BOUNDS);
    let slot = pool.claim(&limits()?)?;
    fs::create_dir(scene.memory(slot.cgroup.name().as_str())?.join("inner"))?;
    pool.give_back(slot);
    pool.refill(soon())?;
    let counts = pool.counts();
    assert_eq!((counts.unclean, counts.reused, pool.ready()), (1, 0, 1));
    pool.close(soon())?;
    Ok(())
}

#[test]
fn no_more_are_kept_than_the_bound_and_names_in_use_are_passed_over() -> Result<()> {
    let scene = Scene::new("bound")?;
    let former = scene.group("slot-0002")?;
    let bounds = Bounds { ready: 2, ..BOUNDS };
    let mut pool = Pool::new(scene.subtree.clone(), bounds);
    let slots = (0..5).map(|_| Ok(pool.claim(&Limits::default())?));
    let slots = slots.collect::<Result<Vec<_>>>()?;
    for slot in slots {
        pool.give_back(slot);
    }
    pool.refill(soon())?;
    let counts = pool.counts();
    assert_eq!((counts.missed, counts.reused, counts.spare), (5, 2, 3));
    assert_eq!((pool.ready(), scene.subtree.names()?.len()), (2, 3));
    ensure!(former.is_there());
    pool.close(soon())?;
    former.delete(soon())?;
    Ok(())
}
