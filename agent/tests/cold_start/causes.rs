//! Why a phase took as long as it did.

use hearth::observe::cold_start::{ColdStart, Phase};
use hearth_abi::{Counters, Kind, Mark, flags};

use crate::bodies::check;
use crate::story::{SOURCE, Story, p};

/// A start whose `user_init` of 1,000 us ends with a mark that `change` edits; the mark at
/// its begin has no counters.
fn user_init(change: impl Fn(&mut Mark)) -> Phase {
    let mut story = Story::watched();
    story.fork(0, p(SOURCE), p(1));
    story.program([100, 150, 400, 500], p(1), "/usr/bin/app");
    if let Some(hearth::kernel::event::Event::Mark(_, main)) = story.events.last_mut() {
        main.counters = Counters::default();
    }
    let end = story.mark(Kind::Listen, 1500, p(1));
    end.counters = Counters::default();
    change(end);
    let start: ColdStart = story.traced();
    check(&start);
    start.phases.into_iter().next_back().expect("a phase")
}

fn causes(phase: &Phase) -> [Option<u64>; 4] {
    [
        phase.running_ns,
        phase.queued_ns,
        phase.io_ns,
        phase.blocked_ns,
    ]
    .map(|ns| ns.map(|ns| ns.0))
}

#[test]
fn accounted_time_is_told_by_cause() {
    let phase = user_init(|end| {
        end.threads = 7;
        end.counters.running_ns = 100_000;
        end.counters.queued_ns = 200_000;
        end.counters.io_ns = 300_000;
        end.counters.blocked_ns = 400_000;
    });
    assert_eq!(
        causes(&phase),
        [Some(100_000), Some(200_000), Some(300_000), Some(400_000)]
    );
}

#[test]
fn a_small_residue_goes_to_running_and_a_large_one_is_not_explained_away() {
    let within = user_init(|end| end.counters.blocked_ns = 960_000);
    assert_eq!(
        causes(&within),
        [Some(40_000), Some(0), Some(0), Some(960_000)]
    );
    let over = user_init(|end| {
        end.counters.running_ns = 10_000;
        end.counters.io_ns = 1_020_000;
    });
    assert_eq!(causes(&over), [Some(0), Some(0), Some(1_000_000), Some(0)]);
    let missing = user_init(|end| end.counters.blocked_ns = 900_000);
    assert_eq!(causes(&missing), [None; 4]);
}

#[test]
fn one_thread_without_a_switch_ran_all_the_time() {
    let phase = user_init(|end| end.flags = 0);
    assert_eq!(causes(&phase), [Some(1_000_000), Some(0), Some(0), Some(0)]);
}

#[test]
fn unaccounted_switches_leave_only_the_wait_for_a_cpu() {
    let phase = user_init(|end| {
        end.flags = flags::RUN_DELAY;
        end.counters.nvcsw = 3;
        end.counters.run_delay_ns = 70_000;
    });
    assert_eq!(causes(&phase), [None, Some(70_000), None, None]);
    let threads = user_init(|end| {
        end.flags = flags::RUN_DELAY;
        end.threads = 2;
    });
    assert_eq!(causes(&threads), [None; 4]);
}

#[test]
fn counts_are_null_where_they_mean_nothing() {
    let whole = user_init(|end| {
        end.counters.minor_faults = 5;
        end.counters.major_faults = 2;
        end.counters.read_bytes = 4096;
    });
    assert_eq!(
        (whole.minor_faults, whole.major_faults, whole.read_bytes),
        (Some(5), Some(2), Some(4096))
    );
    let partial = user_init(|end| end.flags |= flags::COUNTERS_PARTIAL);
    assert_eq!(
        (
            partial.minor_faults,
            partial.major_faults,
            partial.read_bytes
        ),
        (None, None, None)
    );
    let unread = user_init(|end| end.flags |= flags::NO_READ_BYTES);
    assert_eq!((unread.minor_faults, unread.read_bytes), (Some(0), None));
}

#[test]
fn accounting_that_begins_with_the_watch_still_tells_what_follows() {
    // The opener's own exec begins before it is watched.
    let mut settings = crate::story::daemon(false);
    let app = hearth::observe::cold_start::StartRule::new(
        "app",
        hearth::observe::cold_start::Role::Program,
    );
    settings.rules = vec![app.expect("a name")];
    let mut story = Story::watched();
    story.program([0, 50, 300, 400], p(1), "/srv/app");
    let end = story.mark(Kind::Listen, 900, p(1));
    end.counters.running_ns -= 300_000;
    end.counters.blocked_ns = 300_000;
    end.counters.nvcsw = 1;
    for event in &mut story.events {
        if let hearth::kernel::event::Event::Mark(Kind::ExecBegin, mark) = event {
            mark.flags = 0;
        }
    }
    let whole = story.starts(settings.clone());
    assert_eq!(
        causes(&whole[0].phases[0]),
        [Some(50_000), Some(0), Some(0), Some(0)]
    );
    // Merged into one phase, the piece without accounting does not spoil the rest.
    let merged = story
        .without(Kind::Entry, 0)
        .without(Kind::Main, 0)
        .without(Kind::Exec, 0);
    let merged = merged.starts(settings);
    assert!(
        merged.is_empty(),
        "without its exec nobody can tell what program it is"
    );
    assert_eq!(
        causes(&whole[0].phases[3]),
        [Some(200_000), Some(0), Some(0), Some(300_000)]
    );
}
