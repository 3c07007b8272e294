//! Recorded marks of real starts (kernel 6.18), told again.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use hearth::kernel::event::Event;
use hearth::observe::cold_start::{ColdStart, Mode, Ready, Settings, StartRule, Tracker};
use hearth::observe::identity::CgroupNames;
use hearth::observe::recording;
use hearth::time::Boottime;
use hearth_abi::Kind;
use proptest::prelude::*;
use proptest::sample::Index;

use crate::bodies::check;

fn events(name: &str) -> (Settings, Vec<Event>) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/{name}.jsonl"));
    let file = File::open(&path).expect("a fixture");
    let (origin, events) = recording::read(BufReader::new(file)).expect("a recording");
    let mode = match origin.source {
        Some(source) => Mode::Trace { source },
        None => Mode::Daemon {
            every_exec: name == "every-exec",
        },
    };
    let mut settings = Settings::new(mode);
    settings.rules = vec![StartRule::runtime("runc").expect("a name")];
    (settings, events)
}

fn told(settings: Settings, events: &[Event]) -> (Vec<ColdStart>, Tracker) {
    let mut tracker = Tracker::new(settings, CgroupNames::new());
    for event in events {
        tracker.accept(event);
    }
    let finished = tracker.advance(Boottime(u64::MAX));
    (
        finished
            .into_iter()
            .map(|finished| finished.start)
            .collect(),
        tracker,
    )
}

fn starts(name: &str) -> Vec<ColdStart> {
    let (settings, events) = events(name);
    let (starts, _) = told(settings, &events);
    starts.iter().for_each(check);
    starts
}

fn labels(start: &ColdStart) -> Vec<String> {
    start
        .phases
        .iter()
        .map(hearth::observe::cold_start::Phase::label)
        .collect()
}

/// Every phase has its split and its counts.
fn is_whole(start: &ColdStart) -> bool {
    start.phases.iter().all(|phase| {
        let causes = [
            phase.running_ns,
            phase.queued_ns,
            phase.io_ns,
            phase.blocked_ns,
        ];
        causes.iter().all(Option::is_some)
            && phase.minor_faults.is_some()
            && phase.read_bytes.is_some()
    })
}

#[test]
fn a_plain_program_that_exits() {
    let starts = starts("plain-exit");
    let [start] = &starts[..] else {
        panic!("{starts:#?}")
    };
    assert_eq!(
        labels(start),
        ["create", "exec", "link", "runtime_init", "user_init"]
    );
    assert_eq!(
        (start.ready, start.opener, start.exit_status),
        (Ready::Exit, "trace", Some(0))
    );
    assert!(is_whole(start), "{start:#?}");
}

#[test]
fn a_shell_around_a_program_that_listens() {
    let starts = starts("wrapper-listen");
    let [start] = &starts[..] else {
        panic!("{starts:#?}")
    };
    assert_eq!(labels(start)[..4], ["create", "wrapper", "exec", "link"]);
    assert_eq!(start.ready, Ready::Listen);
    assert_eq!(start.identity.exe.as_deref(), Some("/usr/bin/python3"));
    assert!(is_whole(start), "{start:#?}");
}

#[test]
fn a_container_run_by_runc() {
    let starts = starts("runc-run");
    let [start] = &starts[..] else {
        panic!("{starts:#?}")
    };
    // busybox is static: sh is a wrapper, and its last exec is the program.
    assert_eq!(labels(start)[..3], ["create", "wrapper", "exec"]);
    assert_eq!((start.ready, start.opener), (Ready::Exit, "exec"));
    assert_eq!(
        start.identity.container_id.as_deref(),
        Some("hearth-recorded")
    );
    assert_eq!(start.identity.container_runtime, Some("runc"));
    assert_eq!(start.identity.exe.as_deref(), Some("/bin/busybox"));
    let create = &start.phases[0];
    for part in ["cgroup", "namespaces", "mounts"] {
        assert!(
            create.parts.iter().any(|span| span.name == part),
            "{part}: {create:#?}"
        );
    }
    assert_eq!(start.parts_dropped, 0);
    assert!(is_whole(start), "{start:#?}");
}

#[test]
fn a_container_created_and_then_started() {
    let (settings, events) = events("runc-create");
    let (seen, tracker) = told(settings, &events);
    let [start] = &seen[..] else {
        panic!("{seen:#?}")
    };
    check(start);
    assert!(
        start.phases[0].parts.iter().any(|span| span.name == "held"),
        "{start:#?}"
    );
    assert_eq!(
        start.identity.container_id.as_deref(),
        Some("hearth-recorded")
    );
    // `runc state`, `start` and `delete` are execs of the runtime that start nothing.
    let stats = tracker.stats();
    assert_eq!(
        stats.opened,
        stats.finished + stats.gone.values().sum::<u64>()
    );
    assert!(stats.opened > 3, "{stats:?}");
}

#[test]
fn every_exec_is_a_start_in_process_mode() {
    let starts = starts("every-exec");
    let mut programs: Vec<_> = starts
        .iter()
        .map(|start| start.identity.exe.clone().expect("a name"))
        .collect();
    programs.sort_unstable();
    assert_eq!(
        programs,
        ["/bin/busybox", "/bin/false", "/bin/true", "/bin/true"]
    );
    assert!(starts.iter().all(|start| start.ready == Ready::Exit));
    // One of the two `true` came by `env`, and the shell execs `false` in the end.
    let wrapped = starts.iter().filter(|start| labels(start)[0] == "wrapper");
    assert_eq!(wrapped.count(), 2);
    let failed = starts
        .iter()
        .find(|start| start.exit_status == Some(1 << 8));
    assert_eq!(
        failed.and_then(|start| start.identity.exe.as_deref()),
        Some("/bin/false")
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn real_starts_with_losses_still_sum(
        name in prop::sample::select(vec!["plain-exit", "wrapper-listen", "runc-run", "runc-create"]),
        lost in prop::collection::vec(any::<Index>(), 0..40),
    ) {
        let (settings, mut events) = events(name);
        for index in lost {
            if !events.is_empty() {
                let index = index.index(events.len());
                events.remove(index);
            }
        }
        told(settings, &events).0.iter().for_each(check);
    }

    #[test]
    fn a_lost_part_changes_no_phase(index in any::<Index>()) {
        let (settings, mut events) = events("runc-run");
        let whole = told(settings.clone(), &events).0;
        let parts: Vec<usize> = events
            .iter()
            .enumerate()
            .filter(|(_, event)| matches!(event, Event::Mark(Kind::Part, _)))
            .map(|(index, _)| index)
            .collect();
        events.remove(*index.get(&parts));
        let less = told(settings, &events).0;
        for (a, b) in whole[0].phases.iter().zip(&less[0].phases) {
            prop_assert_eq!((a.label(), a.begin, a.end), (b.label(), b.begin, b.end));
            prop_assert_eq!((a.running_ns, a.blocked_ns), (b.running_ns, b.blocked_ns));
        }
    }
}
