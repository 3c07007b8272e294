//! Waits for locks of cgroups as parts of the starts that waited.

use hearth::observe::cold_start::PartSpan;
use hearth_abi::Kind;

use crate::bodies::check;
use crate::story::{SOURCE, Story, ZERO_NS, at, daemon, lock_wait, p};

fn story() -> Story {
    let mut story = Story::unwatched();
    story.program([0, 50, 300, 400], p(1), "/bin/a");
    story
}

fn locks(parts: &[PartSpan]) -> Vec<(u64, u64, &str)> {
    let waits = parts.iter().filter(|part| part.name == "lock");
    waits
        .map(|part| (part.begin.0, part.end.0, part.label()))
        .collect()
}

#[test]
fn a_wait_lies_in_the_phase_in_which_it_began_and_names_its_holder() {
    let mut story = story();
    story.events.push(lock_wait(100, 350, p(1), 0));
    story.mark(Kind::Listen, 900, p(1));
    let starts = story.starts(daemon(true));
    check(&starts[0]);
    let link = &starts[0].phases[1];
    assert_eq!(locks(&link.parts), [(at(100), at(350), "cgroup_mutex")]);
    let waited = link.parts[0].waited.as_ref().expect("what it waited for");
    let holder = waited.holder.as_ref().expect("who had it");
    assert_eq!((holder.pid, &*holder.comm), (9, "crun"));
    assert_eq!(waited.operation, "mkdir");
    let all: usize = starts[0].phases.iter().map(|phase| phase.parts.len()).sum();
    assert_eq!(all, 1);
}

#[test]
fn a_wait_of_nobody_in_a_start_or_after_its_end_is_no_part() {
    let mut story = story();
    story.events.push(lock_wait(100, 350, p(2), 0));
    story.events.push(lock_wait(950, 990, p(1), 0));
    story.events.push(lock_wait(100, 350, p(1), ZERO_NS));
    story.mark(Kind::Listen, 900, p(1));
    let starts = story.starts(daemon(true));
    let parts = starts[0].phases.iter().flat_map(|phase| &phase.parts);
    assert_eq!(parts.count(), 0);
    assert_eq!(starts[0].parts_dropped, 0);
}

#[test]
fn a_wait_of_a_watched_start_is_its_part_whoever_waited() {
    let mut story = Story::watched();
    story.fork(0, p(SOURCE), p(1));
    story.exec(10, 50, p(1), "/usr/bin/runc");
    story.fork(100, p(1), p(2));
    story.events.push(lock_wait(120, 140, p(3), ZERO_NS));
    story.program([200, 250, 300, 400], p(2), "/bin/a");
    story.mark(Kind::Listen, 900, p(2));
    let starts = story.starts(crate::story::trace());
    let all: Vec<_> = starts[0]
        .phases
        .iter()
        .flat_map(|phase| locks(&phase.parts))
        .collect();
    assert_eq!(all, [(at(120), at(140), "cgroup_mutex")]);
}

#[test]
fn waits_are_bounded_and_what_goes_is_counted() {
    let mut story = story();
    for us in 0..300 {
        story.events.push(lock_wait(410 + us, 411 + us, p(1), 0));
    }
    story.mark(Kind::Listen, 900, p(1));
    let start = &story.starts(daemon(true))[0];
    let kept = start
        .phases
        .iter()
        .map(|phase| phase.parts.len())
        .sum::<usize>();
    assert_eq!((kept, start.parts_dropped, start.lost), (256, 44, 0));
}
