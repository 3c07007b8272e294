//! Stopping, killing, removing.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use hearth_runtime::cgroup::limits::Pids;
use hearth_runtime::cgroup::{Cgroup, Error, Limits, Name};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::retry_on_intr;
use tempfile::TempDir;

use crate::scene::{Scene, Tenant, counted, soon, until};

#[test]
fn a_frozen_program_makes_no_progress_until_it_is_thawed() -> Result<()> {
    for scene in Scene::each("freeze")? {
        let group = scene.group("freeze")?;
        let folder = TempDir::with_prefix("hearth-test-")?;
        let file = folder.path().join("count");
        let _tenant = Tenant::start(&group, &["count", file.to_str().unwrap_or_default()])?;
        until("it counts", || Ok(counted(&file) > 0))?;
        group.freeze(soon())?;
        let stopped_at = counted(&file);
        thread::sleep(Duration::from_millis(100));
        assert_eq!(counted(&file), stopped_at);
        group.thaw()?;
        until("it goes on", || Ok(counted(&file) > stopped_at))?;
    }
    Ok(())
}

#[test]
fn a_fork_bomb_ends() -> Result<()> {
    for scene in Scene::each("bomb")? {
        let group = scene.group("bomb")?;
        group.apply(&Limits::default().pids(Pids::new(64)?))?;
        let mut tenant = Tenant::start(&group, &["bomb"])?;
        until("it fills its limit", || {
            let pids = group.usage()?.pids.unwrap_or_default();
            Ok(pids.refused > Some(0) && pids.current > 32)
        })?;
        group.kill(soon())?;
        tenant.wait()?;
        assert_eq!(group.procs()?, Vec::<i32>::new());
        ensure!(!group.is_populated()?);
        group.delete(soon())?;
        ensure!(scene.directories("bomb").is_empty());
    }
    Ok(())
}

#[test]
fn a_frozen_program_is_killed_as_well() -> Result<()> {
    for scene in Scene::each("frozen")? {
        let group = scene.group("frozen")?;
        let mut tenant = Tenant::start(&group, &["wait"])?;
        group.freeze(soon())?;
        group.kill(soon())?;
        tenant.wait()?;
        ensure!(!group.is_populated()?);
    }
    Ok(())
}

#[test]
fn one_that_is_in_use_is_not_removed_and_says_by_whom() -> Result<()> {
    let scene = Scene::new("busy")?;
    let group = scene.group("busy")?;
    let mut tenant = Tenant::start(&group, &["wait"])?;
    let refused = group.delete(Instant::now());
    let Err(Error::Busy { pids, .. }) = &refused else {
        anyhow::bail!("{refused:?}");
    };
    assert_eq!(*pids, [tenant.pid()?]);
    // Its end comes while it is tried again.
    let pid = tenant.pid()?;
    let killer = thread::spawn(move || {
        thread::sleep(Duration::from_millis(100));
        rustix::process::kill_process(
            rustix::process::Pid::from_raw(pid).unwrap_or(rustix::process::getpid()),
            rustix::process::Signal::KILL,
        )
    });
    group.delete(soon())?;
    killer
        .join()
        .map_err(|_| anyhow::anyhow!("the killer panicked"))??;
    tenant.wait()?;
    ensure!(scene.directories("busy").is_empty());
    Ok(())
}

#[test]
fn cgroups_that_were_made_inside_go_with_it() -> Result<()> {
    let scene = Scene::new("nested")?;
    let group = scene.group("outer")?;
    for directory in scene.directories("outer") {
        fs::create_dir_all(directory.join("inner/innermost"))?;
    }
    group.delete(soon())?;
    ensure!(scene.directories("outer").is_empty());
    Ok(())
}

#[test]
fn one_that_somebody_else_removed_is_removed_and_what_took_its_name_is_not() -> Result<()> {
    let scene = Scene::new("foreign")?;
    let group = scene.group("taken")?;
    let directories = scene.directories("taken");
    for directory in &directories {
        fs::remove_dir(directory)?;
        fs::create_dir(directory)?;
    }
    ensure!(!group.is_there());
    ensure!(group.usage().is_err_and(|error| error.is_gone()));
    group.delete(soon())?;
    assert_eq!(scene.directories("taken"), directories);
    Ok(())
}

#[test]
fn what_cannot_be_made_everywhere_is_made_nowhere() -> Result<()> {
    let scene = Scene::new("undone")?;
    let group = scene.group("name")?;
    let mut directories = scene.directories("name");
    group.delete(soon())?;
    // Somebody has the name in the last hierarchy.
    let last = directories.pop().unwrap_or_default();
    fs::create_dir(&last)?;
    ensure!(scene.group("name").is_err());
    assert_eq!(scene.directories("name"), [last]);
    Ok(())
}

#[test]
fn the_end_of_the_last_process_is_told() -> Result<()> {
    let scene = Scene::new("empty")?;
    let group = scene.group("empty")?;
    if group.birth_fd().is_none() {
        return Ok(());
    }
    let mut tenant = Tenant::start(&group, &["wait"])?;
    let mut events = group.events()?;
    group.kill(soon())?;
    tenant.wait()?;
    let minute = Timespec {
        tv_sec: 60,
        tv_nsec: 0,
    };
    let mut of = [PollFd::new(&events, PollFlags::IN)];
    assert_eq!(retry_on_intr(|| poll(&mut of, Some(&minute)))?, 1);
    assert_eq!(events.look()?.populated, Some(false));
    Ok(())
}

#[test]
fn what_outlived_its_owner_is_found_and_taken_again() -> Result<()> {
    let scene = Scene::new("adopt")?;
    let group = scene.group("survivor")?;
    let mut tenant = Tenant::start(&group, &["wait"])?;
    drop(group);
    let survivor = Name::new("survivor")?;
    assert_eq!(scene.subtree.names()?, std::slice::from_ref(&survivor));
    let group = Cgroup::open(&scene.subtree, survivor)?;
    assert_eq!(group.procs()?, [tenant.pid()?]);
    group.kill(soon())?;
    tenant.wait()?;
    group.delete(soon())?;
    Ok(())
}
