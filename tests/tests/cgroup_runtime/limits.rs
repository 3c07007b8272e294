//! Limits hold, and what they did is told.

use std::os::unix::process::ExitStatusExt as _;

use anyhow::{Result, ensure};
use hearth_runtime::cgroup::limits::{Cpu, IoWeight, Memory, Pids};
use hearth_runtime::cgroup::{Limits, Outcome, Resource, Setting, Share};
use hearth_tests::cgroup::Hierarchy;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::retry_on_intr;
use tempfile::TempDir;

use crate::scene::{MIB, Scene, Tenant, read, until};

fn applied(value: &str) -> Outcome {
    Outcome::Applied(value.to_owned())
}

#[test]
fn every_setting_is_in_the_kernels_files_or_said_to_be_unsupported() -> Result<()> {
    let scene = Scene::new("settings")?;
    let group = scene.group("all")?;
    let limits = Limits::default()
        .memory(Memory::new(64 * MIB + 1)?)
        .swap(0)?
        .cpu(Cpu::millicores(250)?)
        .pids(Pids::new(40)?)
        .io_weight(IoWeight::new(50)?)
        .oom_group();
    let report = group.apply(&limits)?;
    let memory = scene.memory("all")?;
    // The kernel counts whole pages.
    let bytes = (64 * MIB).to_string();
    if Hierarchy::memory()?.v2 {
        assert_eq!(report.of(Setting::Memory), Some(&applied(&bytes)));
        assert_eq!(read(&memory.join("memory.max"))?, bytes);
        assert_eq!(read(&memory.join("memory.high"))?, (56 * MIB).to_string());
        assert_eq!(read(&memory.join("memory.oom.group"))?, "1");
        assert_eq!(read(&memory.join("cpu.max"))?, "25000 100000");
        assert_eq!(report.of(Setting::Cpu), Some(&applied("25000 100000")));
    } else {
        assert_eq!(report.of(Setting::Memory), Some(&applied(&bytes)));
        assert_eq!(read(&memory.join("memory.limit_in_bytes"))?, bytes);
        assert_eq!(report.of(Setting::Cpu), Some(&applied("25000")));
        for setting in [Setting::MemoryHigh, Setting::OomGroup, Setting::IoWeight] {
            let told = report.of(setting);
            assert!(
                matches!(told, Some(Outcome::Unsupported(_))),
                "{setting}: {told:?}"
            );
        }
    }
    assert_eq!(report.of(Setting::Pids), Some(&applied("40")));
    assert_eq!(report.0.len(), 7, "{report:?}");
    Ok(())
}

#[test]
fn limits_can_be_raised_and_lowered_while_they_hold() -> Result<()> {
    let scene = Scene::new("again")?;
    let group = scene.group("again")?;
    for mib in [32, 128, 16] {
        let limits = Limits::default()
            .memory(Memory::new(mib * MIB)?)
            .swap(mib * MIB)?
            .cpu(Cpu::new(
                1_000 * mib,
                if mib == 128 { 1_000_000 } else { 10_000 },
            )?);
        let report = group.apply(&limits)?;
        let wanted = applied(&(mib * MIB).to_string());
        assert_eq!(report.of(Setting::Memory), Some(&wanted));
    }
    Ok(())
}

#[test]
fn no_more_processes_than_its_limit() -> Result<()> {
    let scene = Scene::new("pids")?;
    let group = scene.group("pids")?;
    group.apply(&Limits::default().pids(Pids::new(8)?))?;
    let mut tenant = Tenant::start(&group, &["fork", "100"])?;
    assert_eq!(tenant.line()?, "7 EAGAIN");
    let pids = group.usage()?.pids.unwrap_or_default();
    assert_eq!(pids.current, 8);
    ensure!(pids.refused >= Some(1), "{pids:?}");
    assert_eq!(group.procs()?.len(), 8);
    Ok(())
}

#[test]
fn a_process_beyond_its_memory_is_killed_and_that_is_told() -> Result<()> {
    let scene = Scene::new("memory")?;
    let group = scene.group("memory")?;
    group.apply(&Limits::default().memory(Memory::new(16 * MIB)?))?;
    let mut events = group.events()?;
    let mut tenant = Tenant::start(&group, &["eat", &(256 * MIB).to_string()])?;
    let mut told = (false, 0);
    until("the kill is told", || {
        // There is one thing to wait for, and it wakes whoever waits.
        let mut of = [PollFd::new(&events, PollFlags::IN)];
        let minute = rustix::event::Timespec {
            tv_sec: 60,
            tv_nsec: 0,
        };
        let readable = told.0 || retry_on_intr(|| poll(&mut of, Some(&minute)))? == 1;
        let happened = events.look()?;
        told = (told.0 | happened.out_of_memory, told.1 + happened.kills);
        ensure!(readable, "nothing was told within a minute");
        Ok(told == (true, 1))
    })?;
    assert_eq!(tenant.wait()?.signal(), Some(9));
    let memory = group.usage()?.memory.unwrap_or_default();
    assert_eq!(memory.oom_kills, Some(1));
    ensure!(memory.peak.is_none_or(|peak| peak > 15 * MIB), "{memory:?}");
    Ok(())
}

#[test]
fn a_program_that_wants_more_time_than_its_limit_is_throttled() -> Result<()> {
    let scene = Scene::new("cpu")?;
    let group = scene.group("cpu")?;
    group.apply(&Limits::default().cpu(Cpu::millicores(20)?))?;
    let folder = TempDir::with_prefix("hearth-test-")?;
    let file = folder.path().join("count");
    let _tenant = Tenant::start(&group, &["count", file.to_str().unwrap_or_default()])?;
    until("it was throttled", || {
        let cpu = group.usage()?.cpu;
        let used = cpu.used.unwrap_or_default();
        Ok(cpu.throttled_periods > Some(0) && cpu.throttled > cpu.used && !used.is_zero())
    })
}

#[test]
fn processes_that_wait_for_a_processor_are_told_where_the_kernel_does() -> Result<()> {
    let scene = Scene::new("pressure")?;
    let group = scene.group("pressure")?;
    let (waited, window) = (
        std::time::Duration::from_millis(20),
        std::time::Duration::from_secs(2),
    );
    let trigger = group.watch(Resource::Cpu, Share::Some, waited, window);
    if group.pressure(Resource::Cpu)?.is_none() {
        let refused = trigger
            .err()
            .map(|error| error.to_string())
            .unwrap_or_default();
        ensure!(refused.contains("psi=1"), "{refused}");
        return Ok(());
    }
    let trigger = trigger?;
    let folder = TempDir::with_prefix("hearth-test-")?;
    let file = folder.path().join("count");
    let file = file.to_str().unwrap_or_default();
    let more = std::thread::available_parallelism()?.get() + 2;
    let tenants = (0..more).map(|_| Tenant::start(&group, &["count", file]));
    let _tenants = tenants.collect::<Result<Vec<_>>>()?;
    let mut of = [PollFd::new(&trigger, PollFlags::PRI)];
    let minute = rustix::event::Timespec {
        tv_sec: 60,
        tv_nsec: 0,
    };
    assert_eq!(retry_on_intr(|| poll(&mut of, Some(&minute)))?, 1);
    let told = group.pressure(Resource::Cpu)?.unwrap_or_default();
    ensure!(told.some.total >= waited, "{told:?}");
    Ok(())
}
