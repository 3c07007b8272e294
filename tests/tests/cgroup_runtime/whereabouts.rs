//! Which hierarchies there are, and that a process is in the cgroup in all of them.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use hearth_runtime::cgroup::{Controller, Error, Layout, Name, Place, Subtree, Version, step_down};
use hearth_tests::cgroup::{Cgroup, Hierarchy, unique};

use crate::scene::{Scene, Tenant};

#[test]
fn a_process_is_in_the_cgroup_in_every_hierarchy_and_in_the_twin() -> Result<()> {
    let scene = Scene::new("where")?;
    let group = scene.group("where")?;
    let tenant = Tenant::start(&group, &["wait"])?;
    let told = fs::read_to_string(format!("/proc/{}/cgroup", tenant.pid()?))?;
    let path = format!("/{}/where", scene.name);
    let is_in = |line: &str| line.ends_with(&path);
    for controller in ["memory", "pids"] {
        let v2 = Hierarchy::memory()?.v2;
        let mut lines = told.lines();
        let of = |line: &&str| v2 || line.split(':').nth(1) == Some(controller);
        let line = lines
            .find(of)
            .with_context(|| format!("no {controller} in {told}"))?;
        ensure!(is_in(line), "{told}");
    }
    let v2 = told.lines().find(|line| line.starts_with("0::"));
    assert_eq!(v2.map(is_in), group.birth_fd().map(|_| true), "{told}");
    // What carries memory, as the tests find it by themselves.
    let wanted = if Hierarchy::memory()?.v2 {
        Version::V2
    } else {
        Version::V1
    };
    assert_eq!(scene.subtree.carrier(Controller::Memory), Some(wanted));
    Ok(())
}

#[test]
fn a_process_can_begin_inside() -> Result<()> {
    /// libc's is too narrow for it.
    const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
    use std::os::fd::AsRawFd as _;
    let scene = Scene::new("clone")?;
    let group = scene.group("clone")?;
    let Some(directory) = group.birth_fd() else {
        return Ok(());
    };
    // SAFETY: all bytes zero is a valid value of this structure of numbers.
    let mut how: libc::clone_args = unsafe { std::mem::zeroed() };
    how.flags = CLONE_INTO_CGROUP;
    how.exit_signal = u64::from(libc::SIGCHLD.cast_unsigned());
    how.cgroup = u64::try_from(directory.as_raw_fd())?;
    // SAFETY: as fork; the child of a process with threads does nothing but wait for its end.
    let pid = unsafe {
        let pid = libc::syscall(libc::SYS_clone3, &raw mut how, size_of_val(&how));
        if pid == 0 {
            loop {
                libc::pause();
            }
        }
        pid
    };
    ensure!(pid > 0, "{}", std::io::Error::last_os_error());
    let pid = i32::try_from(pid)?;
    let told = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    let killed = group.kill(crate::scene::soon());
    let child = rustix::process::Pid::from_raw(pid);
    rustix::process::waitpid(child, rustix::process::WaitOptions::empty())?;
    killed?;
    ensure!(
        told.lines()
            .any(|line| line == format!("0::/{}/clone", scene.name)),
        "{told}"
    );
    Ok(())
}

#[test]
fn the_subtree_lies_below_the_own_cgroup() -> Result<()> {
    let layout = Layout::discover()?;
    let name = unique("own");
    let subtree = match Subtree::open(&layout, Place::Own, Name::new(&name)?) {
        // A service whose cgroup was not delegated to it in this way.
        Err(Error::Occupied { pids, .. }) => {
            ensure!(pids.contains(&i32::try_from(std::process::id())?));
            return Ok(());
        }
        subtree => subtree?,
    };
    let hierarchy = Hierarchy::memory()?;
    let own = hierarchy.path_of("self")?;
    let directory = hierarchy
        .mount
        .join(own.trim_start_matches('/'))
        .join(&name);
    let is_there = directory.exists();
    subtree.remove()?;
    ensure!(is_there, "{} is missing", directory.display());
    ensure!(!directory.exists(), "{} is left", directory.display());
    Ok(())
}

/// Of v2: a cgroup with processes has no children with controllers.
#[test]
fn a_cgroup_with_processes_must_be_stepped_down_from() -> Result<()> {
    if !Hierarchy::memory()?.v2 {
        return Ok(());
    }
    let _hold = hearth_tests::machine::quiet()?;
    let service = Cgroup::create("service")?;
    let enter = |directory: &std::path::Path| {
        fs::write(
            directory.join("cgroup.procs"),
            std::process::id().to_string(),
        )
    };
    let root = Hierarchy::memory()?.mount;
    enter(&service.directory)?;
    let tried = (|| {
        let refused = Subtree::open(&Layout::discover()?, Place::Own, Name::default());
        let Err(Error::Occupied { pids, .. }) = refused else {
            anyhow::bail!("{refused:?}");
        };
        let layout = Layout::discover()?;
        step_down(&layout, &Name::new("leaf")?)?;
        let own = fs::read_to_string("/proc/self/cgroup")?;
        let subtree = Subtree::open(&layout, Place::Own, Name::default())?;
        Ok((pids, own, subtree.carrier(Controller::Memory)))
    })();
    enter(&root)?;
    let (pids, own, carrier) = tried?;
    assert_eq!(pids, [i32::try_from(std::process::id())?]);
    assert_eq!(own.trim(), format!("0::{}/leaf", service.path));
    assert_eq!(carrier, Some(Version::V2));
    Ok(())
}
