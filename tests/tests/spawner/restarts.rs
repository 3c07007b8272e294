//! One spawner after the other.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use hearth_runtime::cgroup::{Cgroup, Layout, Name, Place, Subtree};
use hearth_runtime::process::Process;
use hearth_runtime::sandbox::Resources;
use hearth_runtime::sandbox::message::Exit;
use hearth_tests::node::PATIENCE;
use hearth_tests::{child, programs};
use rustix::process::{Pid, Signal, kill_process};

use crate::scene::{MIB, Scene, until};

/// Why a spawner does not even start.
fn refusal(command: &mut Command) -> Result<String> {
    let finished = child::run(command.stderr(Stdio::piped()), PATIENCE)?;
    ensure!(!finished.status.success(), "it started");
    Ok(finished.stderr)
}

#[test]
fn claimed_sandboxes_go_on_when_the_spawner_is_killed_and_parked_ones_do_not() -> Result<()> {
    let mut scene = Scene::new("adopted", 2)?;
    let limits = Resources {
        memory_bytes: Some(64 * MIB),
        memory_high_bytes: Some(64 * MIB),
        ..Resources::default()
    };
    let exits = scene.claim(Resources::default())?;
    let is_ended = scene.claim(Resources::default())?;
    let is_hungry = scene.claim(limits)?;
    scene.parked(2)?;
    let parked = scene.remains()?.processes;
    scene.kill_spawner()?;
    scene.start_spawner(1)?;
    let listed = scene.spawner()?.list()?;
    assert_eq!(listed.len(), 3);
    for one in &listed {
        ensure!(
            one.adopted && Process::of(one.init.pid)? == Some(one.init),
            "{one:?}"
        );
        scene.order(one.sandbox, b'.')?;
    }
    let claimed = [&exits, &is_ended, &is_hungry].map(|claimed| claimed.init.pid);
    scene.parked(1)?;
    until("the former parked ones are gone", || {
        let now = scene.remains()?.processes;
        let mut parked = parked.iter().filter(|(pid, _)| !claimed.contains(pid));
        Ok(parked.all(|parked| !now.contains(parked)) && now.len() == 4)
    })?;
    let mut watch = scene.spawner()?.watch()?;
    ensure!(scene.order(exits.sandbox, b'x').is_err());
    let ended = watch.next(PATIENCE)?.context("nothing was told")?;
    // It was nobody's child who is still there.
    assert_eq!((ended.sandbox, ended.how), (exits.sandbox, Exit::Unknown));
    ensure!(scene.order(is_hungry.sandbox, b'm').is_err());
    let ended = watch.next(PATIENCE)?.context("nothing was told")?;
    assert_eq!(ended.sandbox, is_hungry.sandbox);
    // Where the whole cgroup goes with the victim, each of it may be counted.
    ensure!(ended.oom_kills >= Some(1), "{ended:?}");
    let ended = scene.spawner()?.end(is_ended.sandbox)?;
    assert_eq!((ended.how, ended.oom_kills), (Exit::Unknown, Some(0)));
    scene.only_parked(1)
}

#[test]
fn asked_to_stop_it_leaves_the_claimed_ones_and_nothing_else() -> Result<()> {
    let mut scene = Scene::new("stop", 2)?;
    let claimed = scene.claim(Resources::default())?;
    let stop = |scene: &mut Scene| -> Result<()> {
        let pid = Pid::from_raw(scene.spawner_pid()?.try_into()?).context("a process")?;
        kill_process(pid, Signal::TERM)?;
        assert_eq!(scene.wait_for_spawner()?.code(), Some(0));
        Ok(())
    };
    stop(&mut scene)?;
    let left = scene.remains()?;
    assert_eq!((left.processes.len(), left.sockets.len()), (1, 1));
    let slots = left.cgroups.iter().filter_map(|path| path.file_name());
    let slots: Vec<_> = slots.filter(|name| *name != scene.name()).collect();
    assert!(
        slots
            .iter()
            .all(|name| *name == claimed.slot.to_string().as_str()),
        "{slots:?}"
    );
    scene.start_spawner(0)?;
    scene.order(claimed.sandbox, b'.')?;
    scene.spawner()?.end(claimed.sandbox)?;
    stop(&mut scene)?;
    // Somebody reaps the process that was adopted.
    until("nothing is left", || {
        Ok(scene.remains()? == hearth_tests::node::Remains::default())
    })?;
    Ok(())
}

#[test]
fn what_is_nobodys_is_swept() -> Result<()> {
    const STRANGE: [&str; 3] = ["slot-0007", "strange", "slot-0001x"];
    let mut scene = Scene::new("swept", 0)?;
    let claimed = scene.claim(Resources::default())?;
    scene.kill_spawner()?;
    let subtree = Subtree::open(&Layout::discover()?, Place::Root, Name::new(scene.name())?)?;
    let mut guest = Command::new(programs::c_static("tenant")?)
        .arg("wait")
        .stdin(Stdio::piped())
        .spawn()?;
    for name in STRANGE {
        let strange = Cgroup::create(&subtree, Name::new(name)?)?;
        if name == "strange" {
            strange.attach(guest.id().try_into()?)?;
        }
    }
    let nested = scene
        .directories("strange")?
        .into_iter()
        .next()
        .context("a cgroup")?;
    fs::create_dir(nested.join("inner"))?;
    let sockets = scene.places().sandboxes();
    drop(UnixListener::bind(sockets.join("0123456789abcdef.sock"))?);
    fs::write(sockets.join("junk"), "")?;
    scene.start_spawner(0)?;
    let swept = until("what is nobody's is gone", || {
        let left = scene.remains()?;
        let is_strange =
            |path: &std::path::PathBuf| STRANGE.iter().any(|name| path.ends_with(name));
        Ok(!left.cgroups.iter().any(is_strange) && left.sockets.len() == 1)
    });
    let seen = guest.try_wait();
    let _ = guest.kill();
    guest.wait()?;
    swept?;
    ensure!(seen?.is_some(), "a process in there lives on");
    scene.order(claimed.sandbox, b'.')
}

#[test]
fn a_second_one_for_the_same_sandboxes_is_refused() -> Result<()> {
    let scene = Scene::new("second", 0)?;
    let told = refusal(&mut scene.command(0)?)?;
    ensure!(told.contains("another hearth-spawner has it"), "{told}");
    // Another directory, the same cgroup.
    let other = Scene::empty("second-too")?;
    let mut command = other.command(0)?;
    command.args(["--cgroup", scene.name()]);
    let told = refusal(&mut command)?;
    ensure!(
        told.contains("--cgroup") && told.contains("another hearth-spawner has it"),
        "{told}"
    );
    scene.claim(Resources::default())?;
    Ok(())
}

#[test]
fn what_it_cannot_work_with_is_named() -> Result<()> {
    let scene = Scene::empty("wrong")?;
    let places = scene.places();
    let directory = places.directory();
    fs::set_permissions(directory, PermissionsExt::from_mode(0o755))?;
    let told = refusal(&mut scene.command(0)?)?;
    ensure!(told.contains("others may use it (mode 0755)"), "{told}");
    fs::set_permissions(directory, PermissionsExt::from_mode(0o700))?;
    let told = refusal(scene.command(0)?.args(["--init", "/nowhere"]))?;
    ensure!(told.contains("--init /nowhere"), "{told}");
    let told = refusal(scene.command(0)?.args(["--cgroup", "a/b"]))?;
    ensure!(told.contains("--cgroup") && told.contains("a/b"), "{told}");
    let deep = format!("/run/{}", "x".repeat(90));
    let told = refusal(scene.command(0)?.args(["--directory", &deep]))?;
    ensure!(told.contains("choose a shorter one"), "{told}");
    {
        use std::os::unix::process::CommandExt as _;
        let told = refusal(scene.command(0)?.uid(65534).gid(65534))?;
        ensure!(told.contains("start it as root"), "{told}");
    }
    Ok(())
}
