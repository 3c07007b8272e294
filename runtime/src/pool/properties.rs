//! What holds whatever happens, in any order that the protocol allows.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod constant;
mod history;
mod naive;
mod world;

use std::time::Duration;

use proptest::prelude::*;

use super::policy::Choice;
use super::{Action, Settings};
use history::{History, any_requests};
use world::World;

/// What a policy is to say at each look.
type Naive = fn(&History) -> Vec<naive::Decision>;

/// Something that may happen. Numbers choose among what is there.
#[derive(Clone, Debug)]
enum Step {
    Deploy(u8, Box<Settings>, bool),
    Remove(u8),
    Arrive(u8, u8),
    Cancel(u8),
    Started(u8),
    NotStarted(u8),
    /// Whether it had something to do.
    Served(u8, bool),
    /// Whether it was its own fault, and who was served by it comes again.
    Ended(u8, bool, bool),
    Found(u8, bool),
    /// How often it failed, and for how many milliseconds it is left alone yet.
    Resumed(u8, u8, u16),
    Measured(u8, u16),
    Weighed(u8, u8),
    Scheduled(u8, u8),
    Budget(u16),
    /// Milliseconds.
    Pass(u32),
}

fn any_settings() -> impl Strategy<Value = Settings> {
    let counts = (0..3_u32, 1..6_u32, 0..3_u32, 0..4_u32);
    let choice = proptest::sample::select(Choice::ALL.to_vec());
    (counts, any::<bool>(), choice, 1..40_u64).prop_map(
        |((min, max, reserved, queue), hold, policy, memory_bytes)| Settings {
            min,
            max,
            reserved,
            queue,
            hold,
            policy,
            memory_bytes,
        },
    )
}

fn any_step() -> impl Strategy<Value = Step> {
    use Step::{
        Arrive, Budget, Cancel, Deploy, Ended, Found, Measured, NotStarted, Pass, Remove, Resumed,
        Scheduled, Served, Started, Weighed,
    };
    let byte = any::<u8>;
    prop_oneof![
        2 => (byte(), any_settings(), any::<bool>())
            .prop_map(|(function, settings, renew)| Deploy(function, Box::new(settings), renew)),
        1 => byte().prop_map(Remove),
        20 => (byte(), byte()).prop_map(|(function, patience)| Arrive(function, patience)),
        1 => byte().prop_map(Cancel),
        12 => byte().prop_map(Started),
        2 => byte().prop_map(NotStarted),
        12 => (byte(), any::<bool>()).prop_map(|(instance, is_used)| Served(instance, is_used)),
        2 => (byte(), any::<bool>(), any::<bool>())
            .prop_map(|(instance, fault, again)| Ended(instance, fault, again)),
        1 => (byte(), any::<bool>()).prop_map(|(function, busy)| Found(function, busy)),
        1 => (byte(), byte(), any::<u16>())
            .prop_map(|(function, failures, left)| Resumed(function, failures, left)),
        2 => (byte(), any::<u16>()).prop_map(|(function, start)| Measured(function, start)),
        1 => (byte(), byte()).prop_map(|(function, bytes)| Weighed(function, bytes)),
        1 => (byte(), 0..4_u8).prop_map(|(function, count)| Scheduled(function, count)),
        1 => (20..400_u16).prop_map(Budget),
        10 => prop_oneof![0..50_u32, 0..20_000_u32, 0..2_000_000_u32].prop_map(Pass),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    /// What [`World`] asserts of each action, and that nothing is left when all functions are gone.
    #[test]
    fn every_promise_is_kept(
        settings in proptest::collection::vec(any_settings(), 1..4),
        steps in proptest::collection::vec(any_step(), 0..150),
    ) {
        let mut world = World::default();
        for (function, settings) in (0..).zip(settings) {
            world.step(Step::Deploy(function, Box::new(settings), false));
        }
        for step in steps {
            world.step(step);
        }
        world.end();
    }

    /// The same inputs at the same moments give the same actions.
    #[test]
    fn what_was_recorded_gives_the_same_again(
        steps in proptest::collection::vec(any_step(), 0..100),
        settings in any_settings(),
    ) {
        let mut world = World::default();
        world.step(Step::Deploy(0, Box::new(settings), false));
        for step in steps {
            world.step(step);
        }
        let mut again = super::Fleet::default();
        for (now, input, actions) in world.recorded {
            // As it would be read from a file.
            let text = serde_json::to_string(&input).unwrap();
            let input = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(again.apply(now, input), actions);
        }
    }

}

/// Milliseconds between requests, whose number in stretches of ten seconds does not waver more
/// slowly than is remembered: such a load is not constant for who counts by stretches.
fn without_a_beat(every: u64) -> u64 {
    const STRETCH: u64 = 10_000;
    let nearest = (2 * STRETCH / every).div_ceil(2);
    let off = (nearest * every).abs_diff(STRETCH);
    if off * 20 < every { STRETCH } else { every }
}

proptest! {
    // Each is an hour and a half.
    #![proptest_config(ProptestConfig { cases: 25, ..ProptestConfig::default() })]

    /// So many come at once, again and again: when it has settled, none starts and ends again.
    #[test]
    fn nothing_goes_up_and_down_while_the_load_does_not(
        policy in proptest::sample::select(Choice::ALL.to_vec()),
        at_once in 1..5_u32,
        every in 1_000..55_000_u64,
        work in 1..100_000_u64,
        start in 1..5_000_u64,
    ) {
        // Other than that it is not constant for who looks at six seconds.
        let every = match policy {
            Choice::Concurrency => 1_000 + every % 1_000,
            Choice::Quantile(_) => without_a_beat(every),
            _ => every,
        };
        let load = constant::Load {
            at_once,
            every: Duration::from_millis(every),
            work: Duration::from_millis(work.min(every * 8)),
            start: Duration::from_millis(start),
        };
        let changes = load.changes(policy);
        let is_start = |(_, action): &(_, Action)| matches!(action, Action::Start { .. });
        let (starts, ends): (Vec<_>, Vec<_>) = changes.into_iter().partition(is_start);
        prop_assert!(starts.is_empty() || ends.is_empty(), "{policy}: {starts:?} {ends:?}");
    }
}

proptest! {
    /// On tiny traces, and with no more arithmetic than in its definition.
    #[test]
    fn each_policy_says_what_all_of_its_history_does(requests in any_requests()) {
        const KEEP_ALIVE: Duration = Duration::from_mins(10);
        let always: Naive = |history| vec![(0, KEEP_ALIVE); history.looks.len()];
        // 99 of a hundred are below 2.3263 deviations.
        let quantile: Naive = |history| naive::quantile(history, 2.326_348);
        let choices: [(Choice, Naive); 4] = [
            (Choice::Fixed(KEEP_ALIVE), always),
            (Choice::Quantile(9900), quantile),
            (Choice::Hybrid, naive::hybrid),
            (Choice::Concurrency, naive::concurrency),
        ];
        for (choice, naive) in choices {
            let (history, plans) = History::of(&mut *choice.build(), &requests);
            let looks = history.looks.iter().zip(&plans);
            for ((look, plan), right) in looks.zip(naive(&history)) {
                prop_assert_eq!((plan.target, plan.keep_alive), right, "{} at {:?}", choice, look);
            }
        }
    }
}
