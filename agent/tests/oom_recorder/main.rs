//! The flight recorder against real memory cgroups, of whatever version the kernel has. Takes
//! root.

mod cgroup;
mod grower;

use std::fs;
use std::io::Write as _;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use hearth::observe::oom::before::{Before, Vma};
use hearth::observe::oom::known::{Known, Reason};
use hearth::observe::oom::recorder::{Near, Process, Recorded, Recorder, Settings};
use hearth::time::Boottime;
use rustix::fs::{Advice, MemfdFlags};
use tempfile::NamedTempFile;

use cgroup::Cgroup;
use grower::Grower;

const MIB: u64 = 1 << 20;
/// At once, as far as the recorder is concerned.
const AT_ONCE: u64 = 1024 * MIB;
const SETTINGS: Settings = Settings {
    near: 0.6,
    max_cgroups: 2048,
};

fn recorder(settings: Settings) -> (Recorder, Recorded) {
    let thread = Recorder::start(settings).expect("a recorder");
    let recorded = thread.recorded();
    (thread, recorded)
}

/// Waits until `is_so`, for a minute at most.
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_mins(1);
    while !is_so() {
        assert!(Instant::now() < deadline, "not within a minute: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

fn near(recorded: &Recorded, cgroup: &Cgroup) -> Option<Near> {
    let of = |near: &Near| near.id == Some(cgroup.id());
    recorded.near().into_iter().find(of)
}

fn before(recorded: &Recorded, cgroup: &Cgroup, pid: u32, at: Boottime) -> Known<Before> {
    let victim = Process { pid, start: None };
    recorded.before_kill_in(cgroup.id(), victim, at)
}

#[expect(
    clippy::cast_precision_loss,
    reason = "megabytes are compared, not bytes"
)]
fn float(bytes: u64) -> f64 {
    bytes as f64
}

#[test]
fn what_grows_until_it_is_killed_was_recorded() {
    const LIMIT: u64 = 64 * MIB;
    const RATE: u64 = 6 * MIB;
    let (_recorder, recorded) = recorder(SETTINGS);
    // Made while the recorder runs: it has to hear of it, and of its limit.
    let cgroup = Cgroup::make("grows");
    cgroup.set_limit(LIMIT);
    let mut grower = Grower::start(&cgroup, RATE, 256 * MIB);
    let mut armed = None;
    until("the end of the program", || {
        armed = near(&recorded, &cgroup).or(armed.take());
        grower.has_ended()
    });
    assert!(grower.was_killed());
    let armed = armed.expect("it was near its limit before the kill");
    assert_eq!(armed.path.as_deref(), Some(cgroup.path()));
    assert_eq!(armed.limit_bytes, LIMIT);

    let report = grower.report();
    let known = before(&recorded, &cgroup, report.pid, report.last);
    let before = known.value().unwrap_or_else(|| panic!("{known:?}"));
    assert_eq!(before.limit, Known::Value(LIMIT));
    assert!(before.usage.len() >= 4, "{:?}", before.usage);
    assert!(before.usage.is_sorted_by(|a, b| a.at < b.at));
    let last = before.usage.last().expect("a sample");
    assert!(
        last.bytes > LIMIT * 6 / 10 && last.bytes <= LIMIT,
        "{last:?}"
    );
    let needed = last.needed_bytes.expect("memory.stat");
    assert!(needed <= last.bytes);

    let growth = *before.growth.value().expect("a rate");
    let own = report.rate();
    assert!(
        (growth / own - 1.0).abs() < 0.3,
        "{growth} bytes/s, {own} by its own account: {:?}",
        before.usage
    );
    let left = float(LIMIT - needed) / own;
    let expected = before.time_to_limit.value().expect("a time").as_secs_f64();
    assert!(
        (expected - left).abs() < 1.0 + left * 0.3,
        "{expected} s instead of {left} s"
    );
    looked_at_its_processes(before, &grower);
    of_this_version(before, &cgroup);
}

fn looked_at_its_processes(before: &Before, grower: &Grower) {
    let report = grower.report();
    let list = before.vmas.value().expect("its mappings");
    let holds = |vma: &&Vma| vma.start <= report.begin && report.begin + report.length <= vma.end;
    let mapping = list.vmas.iter().find(holds);
    let mapping = mapping.expect("the mapping that grew");
    assert_eq!((mapping.file, &*mapping.perms), (None, "rw-p"));
    let exe = std::env::current_exe().expect("own file");
    let exe = exe.display().to_string();
    let is_code = |vma: &Vma| vma.name == exe && vma.perms == "r-xp" && vma.file.is_some();
    assert!(list.vmas.iter().any(is_code), "no code of {exe}");
    let processes = before.processes.value().expect("who held most");
    assert_eq!(processes[0].pid, report.pid);
    assert!(processes[0].rss_bytes > 32 * MIB, "{processes:?}");
    assert!(!processes[0].name.is_empty());
}

/// What each version of cgroups has, and what it has not.
fn of_this_version(before: &Before, cgroup: &Cgroup) {
    let stat = before.stat.value().expect("memory.stat");
    assert!(!stat.is_empty());
    let events = before.events.value().expect("counters");
    let has = |name: &str| assert!(events.contains_key(name), "no {name}: {events:?}");
    if cgroup.is_v2() {
        has("high");
        has("max");
        assert_eq!(before.oom_group, Known::Value(false));
        let has_pressure = fs::exists("/proc/pressure/memory").unwrap_or(false);
        let pressure = &before.pressure;
        assert_eq!(pressure.value().is_some(), has_pressure, "{pressure:?}");
    } else {
        has("failcnt");
        has("oom_kill");
        let absent = before.oom_group.why().expect("no group on v1");
        assert_eq!(absent.reason, Reason::CgroupVersion);
        let absent = before.pressure.why().expect("no pressure on v1");
        assert_eq!(absent.reason, Reason::CgroupVersion);
    }
}

#[test]
fn what_has_no_limit_is_never_near_it() {
    let (_recorder, recorded) = recorder(SETTINGS);
    let cgroup = Cgroup::make("free");
    let beside = Cgroup::make("limited");
    beside.set_limit(64 * MIB);
    let grower = Grower::start(&cgroup, AT_ONCE, 128 * MIB);
    // The one that gets near says that the recorder has had its time.
    let _held = Grower::start(&beside, AT_ONCE, 48 * MIB);
    until("the cgroup beside it is near its limit", || {
        assert!(near(&recorded, &cgroup).is_none());
        near(&recorded, &beside).is_some()
    });
    until("it is full", || cgroup.usage() > 100 * MIB);
    thread::sleep(Duration::from_secs(2));
    assert!(near(&recorded, &cgroup).is_none());
    let known = before(&recorded, &cgroup, grower.report().pid, Boottime::now());
    let why = known.why().expect("nothing was recorded");
    assert_eq!(why.reason, Reason::NotArmed);
    // A limit that comes later counts from then on.
    cgroup.set_limit(150 * MIB);
    until("it is near its new limit", || {
        near(&recorded, &cgroup).is_some()
    });
    cgroup.set_limit(1024 * MIB);
    until("it is far from it again", || {
        near(&recorded, &cgroup).is_none()
    });
}

#[test]
fn pages_of_files_count_where_they_cannot_be_dropped() {
    let (_recorder, recorded) = recorder(SETTINGS);
    let shared = Cgroup::make("shared");
    shared.set_limit(32 * MIB);
    // Shared memory is a file to the kernel, and on no disk.
    let memory = rustix::fs::memfd_create("shared", MemfdFlags::CLOEXEC).expect("memory");
    let held = memory.try_clone().expect("the same");
    cgroup::run_in(&shared, "head -c 25165824 /dev/zero", memory.into());
    until("it is near its limit", || {
        near(&recorded, &shared).is_some()
    });
    drop(held);

    let Some(file) = file_on_disk(64 * MIB) else {
        eprintln!("this machine has no disk, so that no pages can be dropped");
        return;
    };
    let cache = Cgroup::make("cache");
    cache.set_limit(32 * MIB);
    let read = format!("cat {}", file.path().display());
    cgroup::run_in(&cache, &read, Stdio::null());
    assert!(cache.usage() > 20 * MIB, "{} bytes", cache.usage());
    // More than one look.
    thread::sleep(Duration::from_secs(5));
    assert!(cache.usage() > 20 * MIB, "somebody took the pages away");
    let near = near(&recorded, &cache);
    assert_eq!(near, None, "{:?}", recorded.counts());
}

/// A file of so many bytes of which nothing is in memory, where there is a disk.
fn file_on_disk(bytes: u64) -> Option<NamedTempFile> {
    const TMPFS: i64 = 0x0102_1994;
    const RAMFS: i64 = 0x8584_58f6;
    let folders = [env!("CARGO_TARGET_TMPDIR"), "/var/tmp"].into_iter();
    let is_disk = |folder: &&str| {
        let kind = rustix::fs::statfs(*folder).map(|statfs| statfs.f_type);
        kind.is_ok_and(|kind| kind != TMPFS && kind != RAMFS)
    };
    let mut file = NamedTempFile::new_in(folders.into_iter().find(is_disk)?).expect("a file");
    let content = vec![7; usize::try_from(bytes).expect("a size")];
    file.write_all(&content).expect("written");
    file.as_file().sync_all().expect("written back");
    rustix::fs::fadvise(file.as_file(), 0, None, Advice::DontNeed).expect("dropped");
    Some(file)
}

#[test]
fn a_thousand_cgroups_are_bounded() {
    const BOUND: usize = 300;
    let cgroups: Vec<_> = (0..1000).map(|_| Cgroup::make("many")).collect();
    for cgroup in &cgroups {
        cgroup.set_limit(64 * MIB);
    }
    let (few, bounded) = recorder(Settings {
        max_cgroups: BOUND,
        ..SETTINGS
    });
    until("it watches as many as it may", || {
        bounded.counts().watched == BOUND as u64
    });
    until("it counts the others", || bounded.counts().beyond >= 700);
    drop(few);
    let (_all, recorded) = recorder(SETTINGS);
    until("it knows them", || recorded.counts().watched >= 1000);
    assert_eq!(recorded.counts().beyond, 0);
    // Among all of them the one is found.
    let one = &cgroups[777];
    let grower = Grower::start(one, AT_ONCE, 48 * MIB);
    until("it is near its limit", || near(&recorded, one).is_some());
    drop(grower);
    drop(cgroups);
    until("they are forgotten", || recorded.counts().watched < 500);
}

#[test]
fn those_that_the_kernel_would_choose_are_looked_at() {
    let (_recorder, recorded) = recorder(SETTINGS);
    let cgroup = Cgroup::make("several");
    cgroup.set_limit(128 * MIB);
    // Six small ones, and one that the kernel would choose for its adjustment.
    let small = || Grower::start(&cgroup, AT_ONCE, MIB);
    let _small: Vec<_> = std::iter::repeat_with(small).take(6).collect();
    let adjusted = Grower::adjusted(&cgroup, AT_ONCE, MIB, 900);
    // What is in a cgroup below counts towards the limit, too.
    let inner = cgroup.child("inner");
    let large = Grower::start(&inner, AT_ONCE, 90 * MIB);
    let has = |grower: &Grower| {
        let known = before(&recorded, &cgroup, grower.report().pid, Boottime::now());
        let list = known.value().map(|before| before.vmas.value().is_some());
        list.unwrap_or(false)
    };
    until("both were looked at", || has(&large) && has(&adjusted));
    let near = near(&recorded, &cgroup).expect("near");
    assert_eq!(near.processes[0].pid, large.report().pid);
    drop(large);
    drop(inner);
}

/// What [`Grower`] runs; by itself it does nothing.
#[test]
fn grow() {
    grower::grow_if_asked();
}
