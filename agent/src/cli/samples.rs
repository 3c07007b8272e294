//! Starts to draw in tests: one fully measured, one with little known, one of a container,
//! and any at all.

use std::collections::BTreeMap;
use std::path::Path;

use proptest::prelude::*;

use crate::observe::cold_start::{
    ColdStart, LockHolder, PartSpan, Phase, PhaseName, Ready, Waited,
};
use crate::observe::identity::{Identity, Pod};
use crate::time::{Boottime, Nanos};

/// Compares with the file of that name in `golden`; `HEARTH_BLESS=1` writes it instead.
#[track_caller]
pub(super) fn golden(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("src/cli/golden")
        .join(name);
    if std::env::var_os("HEARTH_BLESS").is_some() {
        std::fs::write(&path, text).expect("a writable golden file");
    }
    let wanted = std::fs::read_to_string(&path).expect("a golden file; HEARTH_BLESS=1 writes it");
    assert_eq!(
        text,
        wanted,
        "{} differs; look, then write it with HEARTH_BLESS=1",
        path.display()
    );
}

/// Boot time at which the samples begin.
pub(super) const BEGIN: u64 = 8_123_456_789_012;

/// A phase without any figure, from and to the given microseconds after [`BEGIN`].
pub(super) fn phase(name: PhaseName, from_us: u64, to_us: u64) -> Phase {
    Phase {
        name,
        merged: Vec::new(),
        begin: Boottime(BEGIN + from_us * 1_000),
        end: Boottime(BEGIN + to_us * 1_000),
        running_ns: None,
        queued_ns: None,
        io_ns: None,
        blocked_ns: None,
        minor_faults: None,
        major_faults: None,
        read_bytes: None,
        parts: Vec::new(),
    }
}

fn measured(mut phase: Phase, causes_us: [u64; 4], counts: [u64; 3]) -> Phase {
    let [running, queued, io, blocked] = causes_us.map(|us| Some(Nanos(us * 1_000)));
    (phase.running_ns, phase.queued_ns) = (running, queued);
    (phase.io_ns, phase.blocked_ns) = (io, blocked);
    let [minor, major, read] = counts.map(Some);
    (phase.minor_faults, phase.major_faults, phase.read_bytes) = (minor, major, read);
    phase
}

fn part(name: &'static str, pid: u32, from_us: u64, to_us: u64) -> PartSpan {
    PartSpan {
        name,
        pid,
        begin: Boottime(BEGIN + from_us * 1_000),
        end: Boottime(BEGIN + to_us * 1_000),
        waited: None,
    }
}

fn start(ready: Ready, opener: &'static str, phases: Vec<Phase>) -> ColdStart {
    let end = phases.last().map_or(BEGIN, |phase| phase.end.0);
    ColdStart {
        begin: Boottime(BEGIN),
        total_ns: Nanos(end - BEGIN),
        ready,
        exit_status: None,
        opener,
        phases,
        parts_dropped: 0,
        identity: Identity {
            boot_id: "7c1f3f3e-9d5a-4a2e-8b6a-0f1d2c3b4a59".to_owned(),
            pid: 4_711,
            start_boottime: Boottime(BEGIN - 1_000),
            argv0: Some("python3".to_owned()),
            exe: Some("/usr/bin/python3".to_owned()),
            ..Identity::default()
        },
        strategies: BTreeMap::from([
            ("entry".to_owned(), "uprobe".to_owned()),
            ("exec".to_owned(), "tp_btf/sched_process_exec".to_owned()),
        ]),
        lost: 0,
    }
}

/// A server in Python, everything measured.
pub(super) fn python() -> ColdStart {
    start(
        Ready::Listen,
        "trace",
        vec![
            measured(
                phase(PhaseName::Create, 0, 214),
                [180, 34, 0, 0],
                [61, 0, 0],
            ),
            measured(
                phase(PhaseName::Exec, 214, 526),
                [290, 0, 22, 0],
                [44, 1, 4_096],
            ),
            measured(
                phase(PhaseName::Link, 526, 1_637),
                [1_001, 0, 110, 0],
                [203, 2, 36_864],
            ),
            measured(
                phase(PhaseName::RuntimeInit, 1_637, 32_412),
                [18_050, 1_220, 9_400, 2_105],
                [3_412, 120, 2_422_784],
            ),
            measured(
                phase(PhaseName::UserInit, 32_412, 48_212),
                [14_800, 300, 500, 200],
                [902, 7, 102_400],
            ),
        ],
    )
}

/// A container, with parts, phases whose causes are not or hardly known, and all names known.
pub(super) fn container() -> ColdStart {
    let mut create = phase(PhaseName::Create, 0, 30_100);
    create.parts = vec![
        part("cgroup", 4_700, 10_200, 11_900),
        part("cgroup", 4_700, 18_000, 19_100),
        part("namespaces", 4_702, 14_000, 15_250),
        part("mounts", 4_703, 21_500, 24_000),
        part("mounts", 4_704, 22_500, 27_200),
        part("held", 4_703, 28_000, 29_900),
    ];
    let mut wrapper = phase(PhaseName::Wrapper, 30_100, 31_450);
    wrapper.queued_ns = Some(Nanos(120_000));
    wrapper.minor_faults = Some(90);
    wrapper.major_faults = Some(0);
    wrapper.read_bytes = Some(0);
    let mut link = phase(PhaseName::Link, 31_800, 61_000);
    link.merged = vec![PhaseName::Link, PhaseName::RuntimeInit];
    let mut start = start(
        Ready::Accept,
        "exec",
        vec![
            create,
            wrapper,
            measured(
                phase(PhaseName::Exec, 31_450, 31_800),
                [350, 0, 0, 0],
                [40, 0, 0],
            ),
            link,
            measured(
                phase(PhaseName::UserInit, 61_000, 83_000),
                [1_000, 0, 2_000, 19_000],
                [7, 0, 0],
            ),
        ],
    );
    start.parts_dropped = 3;
    start.lost = 12;
    let identity = &mut start.identity;
    identity.container_id = Some("ab12cd34ef56".repeat(6)[..64].to_owned());
    identity.container_runtime = Some("containerd");
    identity.cgroup_path = Some("/kubepods/pod1/ab12".to_owned());
    identity.unit = Some("containerd.service".to_owned());
    identity.function = Some("thumbnails".to_owned());
    identity.pod = Some(Pod {
        name: Some("thumbnails-0".to_owned()),
        namespace: Some("default".to_owned()),
        uid: None,
        container: Some("app".to_owned()),
    });
    start
}

/// A program that failed before it was ready, under a hostile name; one phase, nothing known.
pub(super) fn failed() -> ColdStart {
    let mut all = phase(PhaseName::Create, 0, 3_000);
    all.merged = PhaseName::ALL[1..].to_vec();
    let mut start = start(Ready::Exited, "trace", vec![all]);
    start.exit_status = Some(1 << 8);
    start.identity.argv0 = Some("\x1b]0;owned\x07漢字\r\n<svg>&\u{202e}".to_owned());
    start.identity.exe = None;
    start
}

/// A start of no length and without phases.
pub(super) fn empty() -> ColdStart {
    start(Ready::NotReady, "cgroup", Vec::new())
}

fn any_phase() -> impl Strategy<Value = (u64, [Option<u64>; 4], u8)> {
    (
        prop_oneof![Just(0), 0_u64..50_000, 0_u64..400_000_000_000],
        proptest::array::uniform4(proptest::option::of(0_u64..400_000_000_000)),
        0_u8..4,
    )
}

/// The same container, which waited for locks meanwhile.
pub(super) fn waited() -> ColdStart {
    let mut start = container();
    let wait = |from_us, to_us, lock, holder: Option<u32>| PartSpan {
        waited: Some(Box::new(Waited {
            lock,
            operation: "mkdir",
            holder: holder.map(|pid| LockHolder {
                pid,
                comm: "runc".to_owned(),
                operation: Some("attach"),
            }),
        })),
        ..part("lock", 4_700, from_us, to_us)
    };
    start.phases[0].parts = vec![
        part("cgroup", 4_700, 10_000, 17_500),
        wait(10_200, 14_200, "cgroup_mutex", Some(1_234)),
        wait(14_400, 17_400, "cgroup_mutex", Some(1_234)),
        part("cgroup", 4_700, 18_000, 19_500),
        wait(18_100, 18_500, "rcu", None),
        wait(21_000, 21_200, "threadgroup_rwsem", None),
    ];
    start
}

/// Any start: phases of any length, causes that need not fit them, parts that need not either.
pub(super) fn any_start() -> impl Strategy<Value = ColdStart> {
    (
        proptest::collection::vec(any_phase(), 0..7),
        any::<String>(),
        0_u64..3,
    )
        .prop_map(|(lengths, argv0, lost)| {
            let mut at = 0;
            let mut phases = Vec::new();
            for (index, (length, causes, parts)) in lengths.into_iter().enumerate() {
                let mut phase = phase(PhaseName::ALL[index], 0, 0);
                (phase.begin, phase.end) = (Boottime(BEGIN + at), Boottime(BEGIN + at + length));
                at += length;
                let [running, queued, io, blocked] = causes.map(|cause| cause.map(Nanos));
                (phase.running_ns, phase.queued_ns) = (running, queued);
                (phase.io_ns, phase.blocked_ns) = (io, blocked);
                if parts == 3 {
                    phase.merged = PhaseName::ALL[index..].to_vec();
                }
                for nth in 0..u64::from(parts) {
                    let mut span = part("mounts", 9, 0, 0);
                    span.begin = Boottime(phase.begin.0.saturating_sub(5) + nth);
                    span.end = Boottime(phase.end.0 + nth * 1_000);
                    phase.parts.push(span);
                }
                phases.push(phase);
            }
            let mut start = start(Ready::Listen, "trace", phases);
            start.identity.argv0 = Some(argv0);
            start.lost = lost;
            start
        })
}
