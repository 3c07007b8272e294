//! How starts are kept apart, end, and go.

use std::collections::BTreeMap;

use hearth::kernel::event::Event;
use hearth::observe::cold_start::start::Process;
use hearth::observe::cold_start::{Claim, Ready, Reason, Role, StartRule, Tracker};
use hearth::observe::identity::CgroupNames;
use hearth::time::{Boottime, Nanos};
use hearth_abi::Kind;

use crate::bodies::check;
use crate::story::{SOURCE, Story, at, daemon, p, shape, trace};

fn tracker(settings: hearth::observe::cold_start::Settings) -> Tracker {
    Tracker::new(settings, CgroupNames::new())
}

#[test]
fn each_process_that_execs_is_a_start_of_its_own_in_process_mode() {
    let mut story = Story::unwatched();
    story.program([0, 50, 300, 400], p(1), "/bin/a");
    story.program([10, 60, 310, 410], p(2), "/bin/b");
    story.mark(Kind::Listen, 900, p(1));
    story.mark(Kind::Exit, 1000, p(2));
    let starts = story.starts(daemon(true));
    assert_eq!(starts.len(), 2);
    starts.iter().for_each(check);
    assert_eq!(
        shape(&starts[0]),
        "exec 0..50, link 50..300, runtime_init 300..400, user_init 400..900"
    );
    assert_eq!(
        (starts[0].ready, starts[1].ready),
        (Ready::Listen, Ready::Exit)
    );
}

#[test]
fn a_program_that_enters_a_cgroup_of_no_unit_still_has_its_own_start() {
    // Whether the cgroup's path is told in time, after the end, or never.
    for told in [Some(5), Some(1000), None] {
        let mut story = Story::unwatched();
        story.program([0, 50, 300, 400], p(1), "/bin/a");
        story.watch = at(500);
        let attach = story.mark(Kind::CgroupAttach, 500, p(1));
        attach.args = [77, 1, p(1).start_boottime];
        story.mark(Kind::Exit, 900, p(1));
        story.watch = 0;
        if let Some(told) = told {
            story.text(Kind::CgroupPath, told, p(9), 77, "/mine");
            story.events.sort_by_key(|event| match event {
                Event::Text(_, text) => text.boottime_ns,
                Event::Mark(_, mark) => mark.boottime_ns,
                _ => 0,
            });
        }
        let mut tracker = tracker(daemon(true));
        story.events.iter().for_each(|event| tracker.accept(event));
        // Well before its deadline.
        let ended = tracker.advance(Boottime(at(1_000_000)));
        assert_eq!(ended.len(), 1, "told at {told:?}: {ended:#?}");
        let start = &ended[0].start;
        assert_eq!((start.ready, start.total_ns), (Ready::Exit, Nanos(900_000)));
        assert_eq!(tracker.stats().gone[&Reason::OtherCgroup], 1);
    }
}

#[test]
fn a_start_tells_the_strategies_that_were_in_force_all_the_time() {
    let told = |of: &str| BTreeMap::from([("exec_begin".to_owned(), of.to_owned())]);
    let mut settings = daemon(true);
    settings.about.strategies = told("always");
    for (since, expected) in [
        (None, "always"),
        (Some(5), "always"),
        (Some(0), "watch set"),
    ] {
        let mut story = Story::unwatched();
        story.program([0, 50, 300, 400], p(1), "/bin/a");
        story.mark(Kind::Exit, 500, p(1));
        let mut tracker = tracker(settings.clone());
        tracker.set_watching(since.map(|since| (Boottime(at(since)), told("watch set"))));
        story.events.iter().for_each(|event| tracker.accept(event));
        let ended = tracker.advance(Boottime(u64::MAX / 2));
        assert_eq!(ended[0].start.strategies, told(expected), "{since:?}");
    }
}

#[test]
fn a_pid_that_is_used_again_is_another_process() {
    let again = Process {
        tgid: 1,
        start_boottime: 5000,
    };
    let mut story = Story::unwatched();
    story.program([0, 50, 300, 400], p(1), "/bin/a");
    story.mark(Kind::Exit, 500, p(1));
    story.program([600, 650, 700, 800], again, "/bin/b");
    story.mark(Kind::Exit, 900, again);
    let starts = story.starts(daemon(true));
    let names: Vec<_> = starts
        .iter()
        .map(|start| start.identity.exe.as_deref())
        .collect();
    assert_eq!(names, [Some("/bin/a"), Some("/bin/b")]);
    assert_eq!(starts[0].total_ns.0, 500_000);
    assert_eq!(starts[1].identity.start_boottime, Boottime(5000));
}

#[test]
fn what_a_process_does_after_ready_is_no_new_start_until_it_has_ended() {
    let mut tracker = tracker(daemon(true));
    let mut story = Story::unwatched();
    story.program([0, 50, 300, 400], p(1), "/bin/a");
    story.mark(Kind::Listen, 900, p(1));
    assert_eq!(story.tell(&mut tracker).len(), 1);
    let mut later = Story::unwatched();
    later.program(
        [700_000_000, 700_000_050, 700_000_060, 700_000_070],
        p(1),
        "/bin/b",
    );
    later.mark(Kind::Exit, 700_000_100, p(1));
    for event in &later.events {
        tracker.accept(event);
    }
    assert_eq!(tracker.advance(Boottime(u64::MAX)), []);
    let stats = tracker.stats();
    assert_eq!((stats.opened, stats.finished, stats.open), (1, 1, 0));
}

#[test]
fn late_marks_within_the_grace_are_part_of_the_start() {
    let mut tracker = tracker(trace());
    let mut story = Story::watched();
    story.fork(0, p(SOURCE), p(1));
    story.program([100, 150, 400, 500], p(1), "/usr/bin/app");
    story.mark(Kind::Listen, 900, p(1));
    // The main mark comes last, from another CPU.
    let main = story.events.remove(5);
    story.events.iter().for_each(|event| tracker.accept(event));
    assert_eq!(tracker.advance(Boottime(at(50_899))), []);
    tracker.accept(&main);
    let finished = tracker.advance(Boottime(at(50_900)));
    assert_eq!(finished[0].start.phases.len(), 5);
    assert_eq!(
        finished[0].watched,
        [1],
        "it lives on and need not be watched"
    );
}

#[test]
fn an_earlier_end_that_comes_late_is_the_end() {
    let mut story = Story::watched();
    story.fork(0, p(SOURCE), p(1));
    story.program([100, 150, 400, 500], p(1), "/usr/bin/app");
    story.mark(Kind::Exit, 1000, p(1));
    story.mark(Kind::Listen, 900, p(1));
    let start = story.traced();
    assert_eq!(
        (start.ready, start.total_ns),
        (Ready::Listen, Nanos(900_000))
    );
}

#[test]
fn a_start_that_never_gets_ready_ends_at_its_deadline() {
    let mut tracker = tracker(trace());
    let mut story = Story::watched();
    story.fork(0, p(SOURCE), p(1));
    story.program([100, 150, 400, 500], p(1), "/usr/bin/app");
    story.events.iter().for_each(|event| tracker.accept(event));
    assert_eq!(tracker.advance(Boottime(at(300_000_000))), []);
    let finished = tracker.advance(Boottime(at(300_050_000)));
    let start = &finished[0].start;
    check(start);
    assert_eq!(
        (start.ready, start.total_ns),
        (Ready::NotReady, Nanos(300_000_000_000))
    );
    assert_eq!((start.identity.pid, start.phases.len()), (1, 5));
    assert_eq!(start.phases[4].running_ns, None, "no mark at its end tells");
}

#[test]
fn a_rule_has_a_deadline_of_its_own() {
    let mut settings = daemon(false);
    let mut rule = StartRule::new("app", Role::Program).expect("a name");
    rule.deadline = Some(Nanos(1_000_000_000));
    settings.rules = vec![rule];
    let mut story = Story::watched();
    story.program([0, 50, 300, 400], p(1), "/srv/app");
    story.mark(Kind::Listen, 2_000_000, p(1));
    let starts = story.starts(settings);
    assert_eq!(
        (starts[0].ready, starts[0].total_ns.0),
        (Ready::NotReady, 1_000_000_000)
    );
}

#[test]
fn losses_are_told_by_every_start_that_was_open() {
    let mut tracker = tracker(trace());
    tracker.note_lost(3);
    let mut story = Story::watched();
    story.fork(0, p(SOURCE), p(1));
    story.program([100, 150, 400, 500], p(1), "/usr/bin/app");
    story.events.iter().for_each(|event| tracker.accept(event));
    tracker.note_lost(4);
    let mut end = Story::watched();
    end.mark(Kind::Listen, 900, p(1));
    assert_eq!(end.tell(&mut tracker)[0].start.lost, 4);
}

#[test]
fn the_oldest_start_goes_when_there_are_too_many() {
    let mut settings = daemon(true);
    settings.limits.starts = 4;
    let mut tracker = tracker(settings);
    let mut story = Story::unwatched();
    for pid in 1..=10 {
        let us = u64::from(pid) * 10;
        story.exec(us, us + 1, p(pid), "/bin/a");
    }
    story.events.iter().for_each(|event| tracker.accept(event));
    assert_eq!(tracker.stats().gone, BTreeMap::from([(Reason::Starts, 6)]));
    let mut pids: Vec<_> = tracker
        .advance(Boottime(u64::MAX))
        .into_iter()
        .map(|finished| finished.start.identity.pid)
        .collect();
    pids.sort_unstable();
    assert_eq!(pids, [7, 8, 9, 10]);
}

#[test]
fn memory_is_bounded_and_the_evicted_are_no_longer_watched() {
    let mut settings = daemon(false);
    settings.limits.bytes = 64 << 10;
    settings.rules = vec![StartRule::new("app", Role::Program).expect("a name")];
    let mut tracker = tracker(settings);
    let mut story = Story::unwatched();
    for pid in 1..=500 {
        let us = u64::from(pid) * 10;
        story.watch = at(us);
        story.exec(us, us + 1, p(pid), "/bin/app");
    }
    for event in &story.events {
        tracker.accept(event);
        assert!(tracker.stats().bytes <= 64 << 10);
    }
    let stats = tracker.stats();
    let evicted = stats.gone[&Reason::Memory];
    assert!(evicted > 0 && stats.open > 10, "{stats:?}");
    assert_eq!(tracker.take_unwatched().len() as u64, evicted);
    assert!(tracker.take_unwatched().is_empty());
}

#[test]
fn a_start_that_forks_without_end_keeps_what_may_be_on_its_chain() {
    let mut settings = trace();
    settings.limits.marks_per_start = 100;
    let mut tracker = tracker(settings);
    let mut story = Story::watched();
    story.fork(0, p(SOURCE), p(1));
    story.program([1, 2, 3, 4], p(1), "/bin/make");
    for pid in 10..2000 {
        let us = u64::from(pid) * 10;
        story.fork(us, p(1), p(pid));
        story.program([us + 1, us + 2, us + 3, us + 4], p(pid), "/bin/cc");
        story.mark(Kind::Exit, us + 5, p(pid));
    }
    story.fork(30_000, p(1), p(5000));
    story.program([30_100, 30_150, 30_200, 30_300], p(5000), "/bin/server");
    story.mark(Kind::Listen, 30_900, p(5000));
    let finished = story.tell(&mut tracker);
    assert_eq!(
        shape(&finished[0].start),
        "create 0..1, wrapper 1..30100, exec 30100..30150, link 30150..30200, \
         runtime_init 30200..30300, user_init 30300..30900"
    );
    let stats = tracker.stats();
    assert!(stats.marks_dropped > 11_000, "{stats:?}");
    assert_eq!(finished[0].start.lost, stats.marks_dropped);
}

#[test]
fn ten_thousand_starts_at_once_are_all_told() {
    let mut settings = daemon(true);
    settings.limits.starts = 10_000;
    settings.limits.bytes = 64 << 20;
    let mut tracker = tracker(settings);
    let steps = [
        Kind::ExecBegin,
        Kind::Exec,
        Kind::Entry,
        Kind::Main,
        Kind::Exit,
    ];
    let mut story = Story::unwatched();
    for (step, kind) in steps.into_iter().enumerate() {
        for pid in 1..=10_000 {
            story.mark(kind, step as u64 * 10_000 + u64::from(pid), p(pid));
        }
    }
    let finished = story.tell(&mut tracker);
    assert_eq!(finished.len(), 10_000);
    assert!(
        finished
            .iter()
            .all(|finished| finished.start.ready == Ready::Exit)
    );
    let stats = tracker.stats();
    assert_eq!((stats.open, stats.bytes, stats.gone.len()), (0, 0, 0));
}

#[test]
fn stragglers_of_an_ended_start_are_no_start_and_no_longer_watched() {
    let mut tracker = tracker(trace());
    let mut story = Story::watched();
    story.fork(0, p(SOURCE), p(1));
    story.program([100, 150, 400, 500], p(1), "/usr/bin/app");
    story.mark(Kind::Listen, 900, p(1));
    assert_eq!(story.tell(&mut tracker).len(), 1);
    let mut late = Story::watched();
    late.fork(700_000_000, p(1), p(2));
    assert_eq!(late.tell(&mut tracker), []);
    assert_eq!(tracker.take_unwatched(), [2]);
    assert_eq!(tracker.stats().opened, 1);
}

#[test]
fn exits_of_what_began_before_the_agent_are_counted_apart() {
    let mut tracker = tracker(daemon(true));
    let mut story = Story::unwatched();
    story.mark(Kind::Exit, 5, p(1));
    assert_eq!(story.tell(&mut tracker), []);
    assert_eq!(
        tracker.stats().gone,
        BTreeMap::from([(Reason::Headless, 1)])
    );
}

fn claim(init: u32, us: u64) -> Claim {
    Claim {
        init,
        at: Boottime(at(us)),
        function: "thumbnail".into(),
        deadline: Nanos(10_000_000_000),
    }
}

#[test]
fn a_claimed_sandbox_starts_with_its_claim_and_is_ready_when_it_asks_for_work() {
    // There may be a fork server too: what its forks are is not what this one is.
    let mut settings = daemon(false);
    settings.rules = vec![StartRule::new("zygote", Role::ForkServer).expect("a name")];
    let mut tracker = tracker(settings);
    tracker.claimed(claim(50, 0));
    let mut story = Story::watched();
    story.watch = at(300);
    story.fork(300, p(50), p(1));
    story.program([400, 450, 600, 700], p(1), "/bin/app");
    // A function may listen; that is not what is waited for.
    story.mark(Kind::Listen, 800, p(1));
    story.mark(Kind::Next, 1000, p(1));
    let finished = story.tell(&mut tracker);
    let start = &finished[0].start;
    check(start);
    assert_eq!(
        shape(start),
        "create 0..400, exec 400..450, link 450..600, runtime_init 600..700, user_init 700..1000"
    );
    assert_eq!((start.opener, start.ready), ("claim", Ready::Next));
    assert_eq!(start.identity.function.as_deref(), Some("thumbnail"));
    assert_eq!(tracker.take_unwatched(), [50], "its later forks open none");
}

#[test]
fn that_a_claimed_function_is_ready_may_be_told_before_its_marks_or_after_them() {
    for early in [true, false] {
        let mut tracker = tracker(daemon(false));
        tracker.claimed(claim(50, 0));
        if early {
            tracker.claimed_is_ready(Boottime(at(0)), Boottime(at(1000)));
        }
        let mut story = Story::watched();
        story.watch = at(300);
        story.fork(300, p(50), p(1));
        story.program([400, 450, 600, 700], p(1), "/bin/app");
        story.events.iter().for_each(|event| tracker.accept(event));
        if !early {
            tracker.claimed_is_ready(Boottime(at(0)), Boottime(at(1000)));
        }
        let finished = tracker.advance(Boottime(at(200_000)));
        let start = &finished[0].start;
        check(start);
        assert!(
            shape(start).ends_with("user_init 700..1000"),
            "{early}: {}",
            shape(start)
        );
        assert_eq!((start.opener, start.ready), ("claim", Ready::Next));
    }
}

#[test]
fn a_claim_that_never_became_a_process_is_forgotten_and_its_number_free_for_another() {
    let mut tracker = tracker(daemon(false));
    tracker.claimed(claim(50, 0));
    tracker.claimed(claim(50, 200));
    let mut story = Story::watched();
    story.watch = at(300);
    story.fork(300, p(50), p(1));
    story.program([400, 450, 600, 700], p(1), "/bin/app");
    story.mark(Kind::Exit, 900, p(1));
    let finished = story.tell(&mut tracker);
    let start = &finished[0].start;
    assert_eq!(
        (start.begin, start.ready),
        (Boottime(at(200)), Ready::Exited)
    );
    for init in 0..2000 {
        tracker.claimed(claim(1000 + init, 0));
    }
    let gone = tracker.take_unwatched();
    assert!(
        gone.contains(&1000) && !gone.contains(&2999),
        "the oldest go, and are not watched"
    );
}
