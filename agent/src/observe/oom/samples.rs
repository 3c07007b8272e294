//! Captures for tests.

use std::collections::BTreeMap;

use super::address::Address;
use super::before::ProcessMemory;
use super::model::{
    Asker, Before, Capture, CaptureId, Cgroup, CgroupState, Completeness, Constraint, Frame, Kill,
    Known, Mapping, Memory, Pressure, Reason, Stall, Thread, TraceLink, UsageSample, Victim, Vma,
    VmaFile, VmaList, Window,
};
use super::store::Note;
use crate::time::{Boottime, Nanos};

/// 2026-01-02 03:04:05.678 UTC.
pub(crate) const KILLED: u64 = 1_767_323_045_678_000_000;
const MIB: u64 = 1 << 20;

/// A capture in which everything is known.
pub(crate) fn whole() -> Capture {
    let pid = 4711;
    let cgroup = Cgroup {
        id: 77,
        path: Known::Value("/shop".into()),
    };
    let killed = Boottime(90_000_000_000);
    Capture {
        id: CaptureId::of(KILLED, pid),
        hearth: "0.1.0".into(),
        boot_id: "b0".into(),
        kernel: "6.1.0".into(),
        killed,
        killed_unix_ns: KILLED,
        completeness: Completeness::Complete,
        masked: true,
        kill: Kill {
            constraint: Constraint::Cgroup,
            limit_bytes: Known::Value(64 * MIB),
            usage_bytes: Known::Value(64 * MIB),
            swap_limit_bytes: Known::absent(Reason::NotApplicable, "no limit"),
            swap_usage_bytes: Known::Value(0),
            swap_with_memory: false,
            total_bytes: Known::Value(64 * MIB),
            points: Known::Value(15_900),
            asked_bytes: Known::Value(4096),
            gfp: Known::Value(Address(0xcc0)),
            group: None,
            inexact: BTreeMap::from([("rss".to_owned(), "approximate".to_owned())]),
        },
        victim: Victim {
            pid,
            start_boottime: Boottime(60_000_000_000),
            uid: Known::Value(0),
            comm: "shop".into(),
            command: Known::Value(vec!["/usr/bin/shop".into(), "--key=***".into()]),
            command_cut_bytes: 0,
            exe: Known::Value("/usr/bin/shop".into()),
            oom_score_adj: Known::Value(0),
            threads: 1,
            memory: Memory {
                anon_bytes: Known::Value(60 * MIB),
                file_bytes: Known::Value(2 * MIB),
                shmem_bytes: Known::Value(0),
                swap_bytes: Known::Value(0),
                page_table_bytes: Known::Value(200 << 10),
                virtual_bytes: Known::Value(300 * MIB),
            },
            cgroup: cgroup.clone(),
            container_id: None,
            unit: None,
            pod_uid: None,
        },
        asker: Asker {
            pid,
            tid: pid,
            comm: "shop".into(),
            cgroup: cgroup.clone(),
            kernel_stack: Known::Value(vec![Address(0xffff_ffff_8100_0000)]),
        },
        cgroup,
        state: Known::Value(state(killed)),
        before: Known::Value(before(killed)),
        threads: vec![thread(pid, killed)],
        threads_missing: 0,
        mappings: vec![Mapping {
            vma: vma(),
            path: Known::Value("/usr/bin/shop".into()),
            build_id: Known::Value("00ff".into()),
        }],
        trace: Known::Value(TraceLink {
            trace_id: format!("{:032x}", 7),
            span_id: format!("{:016x}", 9),
        }),
    }
}

/// The note of a capture.
pub(crate) fn note(capture: &Capture) -> Note {
    Note {
        killed: capture.killed,
        killed_unix_ns: capture.killed_unix_ns,
        pid: capture.victim.pid,
        comm: capture.victim.comm.clone(),
        cgroup: capture.victim.cgroup.clone(),
    }
}

/// A capture of which only the kill is known.
pub(crate) fn bare() -> Capture {
    fn none<T>() -> Known<T> {
        Known::absent(Reason::NotTold, "no record of it came")
    }
    let mut capture = whole();
    capture.completeness = Completeness::KillOnly;
    capture.threads.clear();
    capture.threads_missing = 1;
    capture.mappings.clear();
    capture.state = none();
    capture.before = Known::absent(Reason::NotArmed, "");
    capture.trace = none();
    capture.kill = Kill {
        constraint: Constraint::Global,
        limit_bytes: none(),
        usage_bytes: none(),
        swap_limit_bytes: none(),
        swap_usage_bytes: none(),
        swap_with_memory: false,
        total_bytes: none(),
        points: none(),
        asked_bytes: none(),
        gfp: none(),
        group: None,
        inexact: BTreeMap::new(),
    };
    capture.victim.command = none();
    capture.victim.exe = none();
    capture.victim.cgroup.path = none();
    capture.cgroup.path = none();
    capture.victim.memory.anon_bytes = none();
    capture
}

fn vma() -> Vma {
    Vma {
        start: 0x5555_5555_5000,
        end: 0x5555_5555_6000,
        perms: "r-xp".into(),
        offset: 0x1000,
        file: Some(VmaFile {
            major: 8,
            minor: 1,
            inode: 1234,
        }),
        name: "/usr/bin/shop".into(),
    }
}

fn thread(tid: u32, at: Boottime) -> Thread {
    Thread {
        tid,
        comm: "shop".into(),
        at,
        own_context: true,
        registers: Known::Value(BTreeMap::from([
            ("ip".to_owned(), Address(0x5555_5555_5123)),
            ("sp".to_owned(), Address(0x7fff_ffff_e000)),
        ])),
        user_stack: Known::Value(vec![
            Frame {
                ip: Address(0x5555_5555_5123),
                mapping: Known::Value(0),
            },
            Frame {
                ip: Address(0x1),
                mapping: Known::absent(Reason::Gone, "no mapping holds it"),
            },
        ]),
        kernel_stack: Known::Value(vec![Address(0xffff_ffff_8100_1234)]),
        leaf: Known::absent(
            Reason::NotApplicable,
            "the word there is no address of code",
        ),
        stack_window: Known::Value(Window {
            start: Address(0x7fff_ffff_e000),
            bytes: "00ff".into(),
        }),
    }
}

fn state(at: Boottime) -> CgroupState {
    CgroupState {
        at,
        version: 2,
        limit_bytes: Known::Value(64 * MIB),
        high_bytes: Known::absent(Reason::NotApplicable, "memory.high is max"),
        usage_bytes: Known::Value(60 * MIB),
        peak_bytes: Known::Value(64 * MIB),
        stat: Known::Value(BTreeMap::from([
            ("anon".to_owned(), 58 * MIB),
            ("file".to_owned(), 3 * MIB),
            ("inactive_file".to_owned(), 2 * MIB),
        ])),
        events: Known::Value(BTreeMap::from([("oom_kill".to_owned(), 1)])),
        pressure: Known::Value(pressure(at)),
    }
}

fn pressure(at: Boottime) -> Pressure {
    Pressure {
        at,
        some: Stall {
            avg10: 12.5,
            ..Stall::default()
        },
        full: Stall::default(),
    }
}

fn before(killed: Boottime) -> Before {
    let sample = |ago: u64, mib: u64| UsageSample {
        at: Boottime(killed.0 - ago * 1_000_000_000),
        bytes: mib * MIB,
        needed_bytes: Some((mib - 4) * MIB),
    };
    Before {
        limit: Known::Value(64 * MIB),
        growth: Known::Value(2.0 * 1_048_576.0),
        time_to_limit: Known::Value(Nanos(1_000_000_000)),
        oom_group: Known::Value(false),
        processes: Known::Value(vec![ProcessMemory {
            pid: 4711,
            name: "shop".into(),
            at: killed,
            rss_bytes: 60 * MIB,
            oom_score_adj: 0,
        }]),
        usage: vec![sample(20, 24), sample(10, 44), sample(1, 62)],
        pressure: Known::Value(pressure(killed)),
        events: Known::Value(BTreeMap::from([("max".to_owned(), 40)])),
        stat: Known::Value(BTreeMap::from([
            ("anon".to_owned(), 18 * MIB),
            ("file".to_owned(), 3 * MIB),
        ])),
        vmas: Known::Value(VmaList {
            at: Boottime(killed.0 - 1_000_000_000),
            vmas: vec![vma()],
            more: 0,
        }),
    }
}
